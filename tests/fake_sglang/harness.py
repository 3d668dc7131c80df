"""run_repro.sh in a folder of its own, with the stand-in sglang and a made-up nvidia-smi."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent / "site"
FILES = ("run_repro.sh", "client_benchmark.py", "prompts.txt")
FOLDERS = ("repro_pp_graphs", "requirements")
MARK = "FAKE_SGLANG_RUN"  # every process of a run carries it in its environment
LIMIT_S = 600.0  # for whatever a test waits for
# the one that tests/run.sh names has all that the harness needs; numpy and msgspec, say
PYTHON = os.environ.get("REPRO_SERVER_PYTHON", sys.executable)

NVIDIA_SMI = """#!/usr/bin/env bash
gpus=${BASH_SOURCE[0]%/*}/gpus.csv
[[ -s $gpus ]] || { echo "No devices were found" >&2; exit 6; }
[[ $* != *--query-gpu=index,uuid* ]] || cat "$gpus"
"""

# for bash what site/sitecustomize.py is for Python
DF = """#!/usr/bin/env bash
[[ -n ${FAKE_FREE_KIB-} ]] || PATH=${PATH#*:} exec df "$@"
printf 'Filesystem 1024-blocks Used Available\\nfake 0 0 %s\\n' "$FAKE_FREE_KIB"
"""

# the real one takes 0.2 s
COLLECT_ENV = """last=""
for word; do
  [[ $last != --json-file ]] || echo {} >"$word"
  last=$word
done
echo environment
"""


def _ports() -> Iterator[int]:
    """Below those that the kernel gives to connections: nobody gets one between its choice and the
    server's start. Tests that run beside one another have other ones."""
    lowest, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = max(worker + 1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    above = lowest if lowest > 20_000 else 60_000  # where the kernel gives nearly all of them
    mine = range(10_000 + worker, above - 1000, workers)  # a rendezvous is 1000 above its server
    return itertools.cycle(random.sample(mine, len(mine)))


_next_port = functools.cache(_ports)


@functools.cache
def _answers() -> Path:
    """Where all runs of this process keep what a Python's sglang said of itself: it is asked once,
    and again for another version or environment."""
    return _folder_of_process()


@functools.cache
def _copies() -> Path:
    """A copy of the folders for this process, whose files those of its harnesses are links to: a
    copy is 0.24 s of CPU, the links 0.02. Not the checkout itself, which no test may change."""
    made = _folder_of_process()
    for name in FOLDERS:
        shutil.copytree(CHECKOUT / name, made / name)  # copy2: the compiled files stay valid
    return made


def _folder_of_process() -> Path:
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _link(of: str, to: str) -> None:
    try:
        os.link(of, to)
    except OSError:  # on another file system
        shutil.copy2(of, to)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at, and nobody else is given."""
    for port in itertools.islice(_next_port(), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port among 1000")


def _hear_signals() -> None:
    """bash traps no signal that it was started ignoring (`pytest &`, `nohup`): what is ignored here
    is handled by what does nothing, which a child that is exec'ed does not inherit. (A function of
    its own in the child would take a fork of this process, 20 ms of CPU at its size.)"""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


_hear_signals()


def rewrite(path: Path, text: str) -> None:
    """A file with that text in place of one that others may have, too."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_text(text)
    path.chmod(mode)


def wait_until(what: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Poll until `what()` is true. Raises TimeoutError."""
    end_s = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > end_s:
            raise TimeoutError("what the test waits for did not happen")
        time.sleep(0.05)


def at_once(jobs: dict[Any, Callable[[], Any]]) -> dict[Any, Any]:
    """Every job's result by its key; several at a time, as runs mostly wait."""
    with ThreadPoolExecutor(5) as pool:
        begun = {key: pool.submit(job) for key, job in jobs.items()}
    return {key: job.result() for key, job in begun.items()}


@dataclass(frozen=True)
class Done:
    """A run that has ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """All it printed."""
        return (self.out + self.err).splitlines()

    @property
    def own_errors(self) -> list[str]:
        """What names run_repro.sh, as errors do, each with the lines it was wrapped to."""
        found = re.findall(r"^run_repro\.sh: .*(?:\n  .*)*", self.err, re.M)
        return [" ".join(line.strip() for line in error.splitlines()) for error in found]


class Running:
    """A run under way."""

    def __init__(self, harness: Harness, process: subprocess.Popen[bytes], output: Path) -> None:
        self.harness = harness
        self.process = process
        self.output = output

    @property
    def printed(self) -> str:
        return self.output.with_suffix(".out").read_text()

    def until_log(self, label: str, text: str) -> None:
        """Wait until a launch's server log holds `text`."""
        path = self.harness.logs / f"{label}_server.log"

        def there() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the run ended first:\n{self.printed}")
            return path.exists() and text in path.read_text(errors="replace")

        wait_until(there)

    def end(self) -> Done:
        self.process.wait(LIMIT_S)
        return Done(
            self.process.returncode, self.printed, self.output.with_suffix(".err").read_text()
        )


class Harness:
    """The harness under `root`, results in root/out; `gpus` as (total, used) MiB. Its folders are
    links, which is cheaper, until the test changes something in them (`own`)."""

    def __init__(
        self, root: Path, version: str = "0.5.16", gpus: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.root = root
        self.out = root / "out"
        self.logs = self.out / "logs"
        self.port = free_port()
        self.mark = str(root)
        self._runs = 0
        self.servers: list[socketserver.BaseServer] = []  # of a test, ended with the harness
        root.mkdir(parents=True, exist_ok=True)
        for name in (*FILES, *(path.name for path in CHECKOUT.glob("server_args_*.txt"))):
            shutil.copy2(CHECKOUT / name, root / name)
        for name in FOLDERS:
            (root / name).symlink_to(CHECKOUT / name)
        (root / "collect_env.sh").write_text(COLLECT_ENV)
        tools = root / "fake_tools"
        tools.mkdir()
        for name, script in (("nvidia-smi", NVIDIA_SMI), ("df", DF)):
            (tools / name).write_text(script)
            (tools / name).chmod(0o755)
        # the interpreter itself: on some machines python3 is a script that takes 0.07 s to find it
        (tools / "python3").symlink_to(os.path.realpath(PYTHON))
        rows = [f"{n}, GPU-{n}, FAKE H100, {total}, {used}" for n, (total, used) in enumerate(gpus)]
        (tools / "gpus.csv").write_text("".join(f"{row}\n" for row in rows))
        facts = root / "fake_version" / f"sglang-{version}.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: sglang\nVersion: {version}\n"
        )
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "HF_", "FAKE_"))},
            MARK: self.mark,
            "FAKE_FREE_KIB": "99999999",  # on disk
            "REPRO_COLLECT_PATIENCE": "1000",  # a busy machine's programs answer late
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": f"{SITE}:{facts.parent}",
        }
        self.env.pop("PYTHON", None)

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()
        for pid in self._pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def case(self, name: str, *lines: str) -> str:
        """Write server_args_<name>.txt; its label is <name>."""
        text = "\n".join([f"# label: {name}", *lines, ""])
        (self.root / f"server_args_{name}.txt").write_text(text)
        return name

    def own(self) -> None:
        """Have folders in place of links: changed through a link they would be the checkout's.
        Their files are other harnesses' too: to change one, `rewrite` it."""
        for name in FOLDERS:
            if (self.root / name).is_symlink():
                (self.root / name).unlink()
                shutil.copytree(_copies() / name, self.root / name, copy_function=_link)

    def know_answers(self) -> None:
        """A checkout that has asked before, unless the test has made a .state of its own."""
        state = self.root / ".state"
        if not state.exists() and not state.is_symlink():
            state.mkdir()
            (state / "releases").symlink_to(_answers())

    def replace(self, module: str, old: str, new: str) -> None:
        """Change a constant in the copy of the package, such as a time limit."""
        self.own()
        path = self.root / "repro_pp_graphs" / module
        text = path.read_text()
        assert text.count(old) == 1
        rewrite(path, text.replace(old, new))

    def give_up_once(self, text: str) -> None:
        """A start's time is up once the log holds `text` of both ranks, however slow the machine
        is, and not before."""
        self.replace(
            "run/wait_ready_step.py",
            "while line.elapsed_s < timeout_s:",
            f"while not log_path.exists() or log_path.read_text().count({text!r}) < 2:",
        )

    def give_up_traces(self, limit_s: float, whole: int = 1, label: str = "") -> None:
        """The time for a profile is up when it has passed and so many ranks' traces are whole,
        however slow the machine is. `label`: of this launch alone."""
        is_it = f"self.launch.label == {label!r} and " if label else ""
        for name in ("STEPS_LIMIT_S = 180.0", "WRITE_LIMIT_S = 300.0"):
            self.replace("run/profile_step.py", name, f"{name.partition(' ')[0]} = {limit_s}")
        self.replace(
            "run/profile_step.py",
            "or self.line.elapsed_s > end_s",
            f"or (self.line.elapsed_s > end_s and {is_it}(count >= {whole} or self.server_gone()))",
        )

    def start(self, *options: str, cwd: Path | None = None, out: Path | None = None) -> Running:
        given = ["--out", str(out or self.out), "--port", str(self.port)]
        given += ["--batch", "2", "--max-new-tokens", "4", "--profile-steps", "2"]
        return self.start_bare(*given, "--python", PYTHON, *options, cwd=cwd)

    def start_bare(self, *options: str, cwd: Path | None = None) -> Running:
        """With these options only."""
        self._runs += 1
        self.know_answers()
        output = self.root / f"terminal_{self._runs}"
        with (
            output.with_suffix(".out").open("wb") as out,
            output.with_suffix(".err").open("wb") as err,
        ):
            process = subprocess.Popen(
                ["bash", str(self.root / "run_repro.sh"), *options],
                cwd=cwd or self.root,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return Running(self, process, output)

    def run(self, *options: str, cwd: Path | None = None, out: Path | None = None) -> Done:
        return self.start(*options, cwd=cwd, out=out).end()

    def files(self) -> set[str]:
        """Every file of --out, relative."""
        found = (path for path in self.out.rglob("*") if path.is_file())
        return {str(path.relative_to(self.out)) for path in found}

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.logs / "summary.json").read_text())
        return found

    def statuses(self) -> dict[str, str]:
        return {launch["label"]: launch["status"] for launch in self.summary()["launches"]}

    def left_over(self) -> list[str]:
        """Command lines of this run's processes that still live."""
        found = []
        for pid in self._pids():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return found

    def _pids(self) -> list[int]:
        """The processes that carry this run's mark; a zombie's environment is empty."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found

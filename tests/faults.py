"""Bad input through the real commands: each fault, how it is injected, and what must be said.

`python tests/faults.py` prints the table (Markdown); test_faults.py holds every row of it: one
sentence, the stated exit status, no traceback, nothing raw on the terminal, nothing left.
"""

from __future__ import annotations

import atexit
import contextlib
import gzip
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from fake_sglang.harness import (
    CHECKOUT,
    LIMIT_S,
    MARK,
    PYTHON,
    Harness,
    at_once,
)
from forked import Ended, ForkServer

NOBODY = 65534
MEMORY = 8 << 30  # bytes: a fault may ask for all there is
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CHANGED = {"__pycache__", ".state"}  # what any command may write into a checkout
RUN, CLIENT = ("bash", "run_repro.sh"), (PYTHON, "client_benchmark.py")
ENV, COMMAND = ("bash", "collect_env.sh"), (PYTHON, "-m", "repro_pp_graphs")

Prepare = Callable[[Harness], None]


def _nothing(_: Harness) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """A command with something wrong: `says` must be in what it says on stderr, or on stdout where
    the exit status is 0. ROOT in a word is the checkout's folder."""

    what: str
    words: tuple[str, ...]
    says: str
    status: int = 2
    prepare: Prepare = _nothing
    shell: str = ""  # a redirection or a pipe, behind the command
    env: dict[str, str] = field(default_factory=dict)
    user: int = 0  # as whom, where the tests run as root
    leaves: str = ""  # a pattern of files that it may leave
    needs_root: bool = False  # to give a file away

    @property
    def command(self) -> str:
        """How it is injected, for the table."""
        words = " ".join(Path(word).name if word == PYTHON else word for word in self.words)
        env = " ".join(f"{name}={value}" for name, value in self.env.items())
        shown = f"{env} {words} {self.shell}".strip()
        as_whom = " (as a user)" if self.user else ""
        return ascii(shown)[1:-1].replace("\\\\", "\\")[:90] + as_whom


@dataclass(frozen=True)
class Outcome:
    """What a fault led to."""

    status: int
    out: str
    err: str
    left: list[str]  # processes and files

    @property
    def complaint(self) -> list[str]:
        """The lines of the last complaint on stderr: `program: what is wrong`, and those that it
        was wrapped to."""
        lines = self.err.splitlines()
        first = [n for n, line in enumerate(lines) if re.match(r"[\w.]+: ", line)]
        return lines[first[-1] :] if first else lines

    @property
    def said(self) -> str:
        """The complaint on one line; where there is none, the last line of what is printed."""
        text = " ".join(self.complaint) or (self.out.strip().splitlines() or [""])[-1]
        return " ".join(text.split())


def _tree(root: Path) -> set[str]:
    found = (path.relative_to(root) for path in root.rglob("*"))  # through no link
    return {str(path) for path in found if not CHANGED & set(path.parts)}


@lru_cache
def python_of_nobody() -> tuple[str, str] | tuple[()]:
    """A Python that other users may run, too, and a PYTHONPATH with what the harness needs; empty
    for none."""
    packages = list(Path(PYTHON).parents[1].glob("lib/python3.*/site-packages"))
    for python in (PYTHON, "/usr/bin/python3"):
        env = {"PYTHONPATH": os.pathsep.join(map(str, packages))}
        words = [python, "-c", "import numpy, msgspec, requests"]
        with contextlib.suppress(OSError):
            done = subprocess.run(words, env=env, capture_output=True, check=False, user=NOBODY)
            if done.returncode == 0 and os.access(CHECKOUT, os.X_OK):
                return python, env["PYTHONPATH"]
    return ()


@lru_cache
def _forks() -> ForkServer:
    """Where commands in Python are run that need no Python of their own."""
    with tempfile.TemporaryDirectory() as folder, Harness(Path(folder, "any")) as harness:
        env = {name: value for name, value in harness.env.items() if name != MARK}
    server = ForkServer(PYTHON, {**env, "PYTHONDONTWRITEBYTECODE": "1"}, MEMORY)
    atexit.register(server.end)
    return server


def _ended(fault: Fault, words: list[str], root: Path, env: dict[str, str]) -> Ended:
    """Run it: in a fork where it is a command in Python, started as everybody else's."""
    if words[0] == PYTHON and not (fault.shell or fault.env or fault.user):
        program, *more = words[2:] if words[1] == "-m" else [str(root / words[1]), *words[2:]]
        return _forks().run(program, more, root, env)
    done = subprocess.run(
        ["bash", "-c", f'ulimit -v {MEMORY >> 10}; "$@" {fault.shell}', "bash", *words],
        cwd=root,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
        user=fault.user or None,
        group=fault.user or None,
        extra_groups=[] if fault.user else None,
    )
    return Ended(done.returncode, done.stdout, done.stderr, alive=False)


def inject(fault: Fault, root: Path) -> Outcome:
    """Run the command in a copy of the checkout at `root`, and look at what it left."""
    with Harness(root) as harness:
        shutil.copy2(CHECKOUT / "collect_env.sh", root)
        if fault.user:
            for path in (root, *root.iterdir()):
                os.chown(path, fault.user, fault.user, follow_symlinks=False)
        fault.prepare(harness)
        if not fault.user:
            harness.know_answers()
        before = _tree(root)
        python = PYTHON
        if fault.user:
            python, more = python_of_nobody() or (PYTHON, "")
            harness.env["PYTHONPATH"] += f"{os.pathsep}{more}"
        words = [word.replace("ROOT", str(root)) for word in fault.words]
        words = [python if word == PYTHON else word for word in words]
        words = [word.replace("PORT", str(harness.port)) for word in words]
        if fault.words[:2] == RUN:
            words[1] = str(root / words[1])
        env = {name: value.replace("ROOT", str(root)) for name, value in fault.env.items()}
        env = {**harness.env, "PYTHONDONTWRITEBYTECODE": "1", **env}
        done = _ended(fault, words, root, env)
        left = [f"process {line}" for line in harness.left_over()] + ["a process"] * done.alive
        files = sorted(_tree(root) - before)
        left += [name for name in files if not (fault.leaves and re.match(fault.leaves, name))]
    shutil.rmtree(root)
    out, err = (text.decode(errors="surrogateescape") for text in (done.out, done.err))
    return Outcome(done.status, out, err, left)


def objections(fault: Fault, outcome: Outcome) -> list[str]:
    """Why an outcome is none that a reader can use; empty where it is."""
    found = []
    said = outcome.out + outcome.err if fault.status < 2 else outcome.err
    if outcome.status != fault.status:
        found.append(f"exit status {outcome.status}")
    if " ".join(fault.says.split()) not in " ".join(said.split()):
        found.append("does not say so")
    if "Traceback" in outcome.out + outcome.err:
        found.append("a traceback")
    if RAW.search(outcome.out + outcome.err):
        found.append("a control character reaches the terminal")
    if fault.status == 2 and not 1 <= len(outcome.complaint) <= 5 and fault.says:
        found.append(f"{len(outcome.complaint)} lines")
    if any(len(line) > 80 and " " in line.strip()[20:] for line in outcome.err.splitlines()):
        found.append("lines of more than 80 columns")
    return found + [f"left {name}" for name in outcome.left]


# --- what is put into the checkout -------------------------------------------------------------


def case(*lines: str) -> Prepare:
    """A case called x with these lines."""

    def prepare(harness: Harness) -> None:
        text = "\n".join([*lines, ""])
        (harness.root / "server_args_x.txt").write_bytes(text.encode("utf-8", "surrogateescape"))

    return prepare


def content(name: str, data: bytes, mode: int = 0o644) -> Prepare:
    """A file with this content."""

    def prepare(harness: Harness) -> None:
        path = harness.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)

    return prepare


def folder(name: str, mode: int = 0o755, owner: int = 0) -> Prepare:
    """A folder of somebody's."""

    def prepare(harness: Harness) -> None:
        (harness.root / name).mkdir(parents=True)
        (harness.root / name).chmod(mode)
        if os.geteuid() == 0:
            os.chown(harness.root / name, owner, owner)

    return prepare


def checkout_in(name: str) -> Prepare:
    """Another checkout, in a folder of that name."""

    def prepare(harness: Harness) -> None:
        (harness.root / name).mkdir()
        for part in (RUN[1], "repro_pp_graphs"):
            (harness.root / name / part).symlink_to(CHECKOUT / part)

    return prepare


def answering(data: bytes, hold: bool = False) -> Prepare:
    """A server at the harness's port that answers each POST with these bytes, and with `hold` does
    not end the connection."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            first = self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            with contextlib.suppress(OSError):
                if not first.startswith(b"POST"):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    return
                self.wfile.write(data)
                if hold:
                    self.rfile.read()

    def prepare(harness: Harness) -> None:
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        server = socketserver.ThreadingTCPServer(("127.0.0.1", harness.port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        harness.servers.append(server)

    return prepare


def together(*steps: Prepare) -> Prepare:
    """One after the other."""

    def prepare(harness: Harness) -> None:
        for step in steps:
            step(harness)

    return prepare


# --- the faults --------------------------------------------------------------------------------

DENIED = "out: Permission denied; choose another --out"
REAL = ("--cpu", "--python", PYTHON, "--out", "out")
DRY = (*REAL, "--port", "PORT", "--dry-run")
CASE = ("--cases", "x")


def _run(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*RUN, *REAL, *words), says, **more)  # type: ignore[arg-type]


def _dry(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*RUN, *DRY, *words), says, **more)  # type: ignore[arg-type]


def _plan(what: str, *words: str, says: str, **more: object) -> Fault:
    """The step in which run_repro.sh refuses it, as it is called there; that the script ends with
    what this step says and leaves nothing, the faults of `_run` and `_dry` show."""
    own = ("--root", "ROOT", "--out", "ROOT/out", "--python", PYTHON, "--command", "run_repro.sh")
    return _command(what, "plan", *own, "--", *REAL, *words, says=says, **more)


def _client(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*CLIENT, *words), says, **more)  # type: ignore[arg-type]


def _env(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*ENV, *words), says, **more)  # type: ignore[arg-type]


def _command(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*COMMAND, *words), says, **more)  # type: ignore[arg-type]


def _numbers() -> Iterator[Fault]:
    options = ("--pp-size", "--rounds", "--layers", "--batch", "--max-new-tokens", "--port",
               "--profile-steps", "--start-timeout")  # fmt: skip
    for number, value in enumerate(("0", "-1", "\u00b2", "1e3", "", "\u0663", "1_0", " 4")):
        name = options[number]
        yield _plan(
            f"{name} that is no number", name, value, says="not a whole number of 1 or more"
        )
    for name, value in (
        ("--pp-size", "0"), ("--pp-size", "x"), ("--port", "0"), ("--port", "http"),
        ("--batch", "-8"), ("--gpus", "0"),
    ):  # fmt: skip
        yield _dry(f"{name} {value}", name, value, says="not a whole number of 1 or more")
    for name, value in (
        ("--port", "65536"), ("--port", "99999999999999999999"), ("--batch", "1000000000"),
        ("--max-new-tokens", "1" + "0" * 12), ("--pp-size", "4096"), ("--layers", "1" * 50),
        ("--rounds", "1001"), ("--start-timeout", "9999999"), ("--profile-steps", "10000000"),
    ):  # fmt: skip
        yield _plan(f"{name} {value[:12]} is too much", name, value, says="the highest is")


def _options() -> Iterator[Fault]:
    yield _run("an option that there is not", "--no-such", says="no option '--no-such'")
    yield _run("an option that there is not, with control characters", "--\x1b[2Jx", says="control")
    yield _run("an option without its value", "--batch", says="--batch needs a value")
    yield _run("a word that is no option", "stray", says="no option 'stray'")
    yield _run("ESC and BEL in a model's name", "--model", "a\x1b]0;x\x07", says="control char")
    yield _run("a line feed in a model's name", "--model", "a\nb", says="control character")
    yield _run("C1 and bidi in a model's name", "--model", "a\u009b1m\u202e", says="control char")
    yield _run("a name of 5000 characters", "--model", "m" * 5000, says="too long")
    yield _run("bytes that are no UTF-8", "--model", "a\udcff", says="no UTF-8")
    yield _run("a case that there is not", "--cases", "nope", says="there is no server_args_nope")
    yield _run("a case with a way out", "--cases", "../x", says="a case's name has letters")
    yield _run("a case with NUL's escape", "--cases", "\x01", says="control character")
    yield _run("no case", "--cases", ",", says="no case named")
    yield _run("a case twice", "--cases", "graphs_on,graphs_on", says="is named twice")
    yield _run("--gpus of a real run", "--gpus", "8", says="--gpus is for --dry-run")
    yield _run("--yes without --attach", "--yes", says="is for --attach")
    yield _run("a password in a model's address", "--model", "https://me:xyzzy@h/m",
               says="an option holds a secret")  # fmt: skip
    yield _run("an engine that there is not", "--engine", "vllm", says="sglang, or probe")
    yield _dry("--rounds 1000 is planned, once", "--rounds", "1000", "--no-profile", says="# files",
               status=0)  # fmt: skip
    for url in ("http://127.0.0.1:99999", "http://h:x", "h", "http://u:p@h", "http://[::1",
                "http://h\x1b[1m"):  # fmt: skip
        says = "control" if "\x1b" in url else "--attach"
        yield Fault(
            f"--attach {url[:26]}", (*RUN, "--python", PYTHON, "--attach", url, "--yes"), says
        )
    yield Fault("--release that there is not", (*RUN, "--release", "9.9"), "no lock for it")
    yield Fault("--release with a way out", (*RUN, "--release", "../cpu"), "--release ../cpu")
    yield Fault("--release on a CPU", (*RUN, "--cpu", "--release", "0.5.2"), "need a GPU")


def _pythons() -> Iterator[Fault]:
    for program in ("/bin/true", "/bin/cat", "/usr/bin/yes", "/dev/null", "/nope", "/tmp"):
        says = "it cannot find sglang" if "bin" in program else "no such program"
        yield Fault(f"--python {program}", (*RUN, "--python", program), says)
        yield _run(
            f"PYTHON={program} in a case", *CASE, says="no sglang there",
            prepare=case(f"PYTHON={program}"),
        )  # fmt: skip
    yield _dry(
        "PYTHON=/bin/true in the shell is passed over", says="# files", status=0,
        env={"PYTHON": "/bin/true"},
    )  # fmt: skip


def _places() -> Iterator[Fault]:
    def at(what: str, out: str, says: str, prepare: Prepare = _nothing, user: int = 0) -> Fault:
        words = (*RUN, *REAL[:-1], out)
        return Fault(what, words, says, prepare=prepare, user=user)

    yield at("--out ''", "", "--out '': name a folder")
    yield at("--out that is a file", "file", "file", content("file", b"x"))
    yield at("--out below a file", "file/out", "file", content("file", b"x"))
    yield at("--out that is a device", "/dev/null", "/dev/null")
    yield at("--out in /proc", "/proc/out", "/proc/out")
    yield at("--out with ESC", "a\x1b[31m", "control character")
    yield at("--out with a name of 300 characters", "n" * 300, "too long")
    yield at("--out whose logs are a file", "out", "out/logs", content("out/logs", b"x"))
    yield at("--out whose trace is a file", "out", "out/trace", content("out/trace", b"x"))
    yield at("--out that points nowhere", "out", "out",
             lambda harness: (harness.root / "out").symlink_to("/nowhere/at/all"))  # fmt: skip
    yield at("--out that points at itself", "out", "out",
             lambda harness: (harness.root / "out").symlink_to("out"))  # fmt: skip
    yield at("--out in a folder that is root's", "in/out", DENIED, folder("in"), NOBODY)
    yield at("--out that is root's", "out", DENIED, folder("out"), NOBODY)
    yield at("--out that is read-only", "out", DENIED, folder("out", 0o555, NOBODY), NOBODY)
    yield at("--out that cannot be entered", "out", "out", folder("out", 0o600, NOBODY), NOBODY)
    yield at(
        "logs of another user in --out", "out", "out/logs",
        together(folder("out", 0o755, NOBODY), folder("out/logs")), NOBODY,
    )  # fmt: skip
    other = "give a path that can be used"  # another --out is no help
    yield _dry("--model with a part of 300 characters", "--model", "/" + "m" * 300,
               "--dummy-weights", says=f"File name too long; {other}")  # fmt: skip
    yield _dry("--model in a folder that cannot be entered", "--model", "in/model",
               "--dummy-weights", says=f"Permission denied; {other}", user=NOBODY,
               prepare=folder("in", 0o700))  # fmt: skip
    yield _run("a checkout's argument file that cannot be read", *CASE, says="server_args_x.txt",
               prepare=content("server_args_x.txt", b"--a 1\n", 0o600), user=NOBODY)  # fmt: skip
    yield _run("a checkout that is root's", says=".state: cannot be written", user=NOBODY,
               prepare=lambda made: os.chown(made.root, 0, 0))  # fmt: skip
    for name in ("a:b", "a\x1b[1m", "a\nb"):
        linked = tuple(f"ROOT/{name}/{part}" for part in RUN[1:])
        yield Fault(f"a checkout in {name[:3]!r}", (RUN[0], *linked, *DRY), "move the checkout",
                    prepare=checkout_in(name))  # fmt: skip
    yield _run(".state that others can write", says=".state", prepare=folder(".state", 0o777))
    yield _run(".state of another user", says=".state", needs_root=True,
               prepare=folder(".state", 0o755, NOBODY))  # fmt: skip
    yield _run(".state that is a file", says=".state", prepare=content(".state", b"x"))


def _argument_files() -> Iterator[Fault]:
    def file(what: str, *lines: str, says: str, status: int = 2) -> Fault:
        make = _dry if status == 0 else _plan
        return make(what, *CASE, says=says, status=status, prepare=case(*lines))

    yield file("NUL in an argument file", "--tp-size 1\0", says="control character")
    yield file("ESC in an argument file", "--served-model-name \x1b[31m", says="control character")
    yield file("a lone carriage return", "--a 1\r--b 2", says="control character")
    yield file("a file that is no UTF-8", "--a \udcff", says="cannot be read")
    yield file("a BOM is no part of it", "\ufeffMY_NOTE=bom", says="MY_NOTE=bom", status=0)
    yield file("# in a value is kept", "MY_NOTE=a#b # c", says="MY_NOTE='a#b'", status=0)
    yield file("a backslash at the end", "--served-model-name a \\", says="ends with a backslash")
    yield file("a quote that stays open", "--served-model-name 'a", says="close the quote")
    yield file("two arguments on a line", "--a 1 --b 2", says="each on its own")
    yield file("a word that is no argument", "tp-size 2", says="neither '--argument")
    yield file("a label of 300 characters", f"# label: {'a' * 300}", says="label of 300 char")
    yield file("label A_vs_B", "# label: A_vs_B", says="files of a run have that name")
    yield file("label summary", "# label: summary", says="files of a run have that name")
    yield file("label with a way out", "# label: ../x", says="use up to 64 letters")
    yield file("label with ESC", "# label: a\x1b[1m", says="control character")
    yield file("an empty label", "# label:", says="label ''")
    yield file("--pp-size 0 in a file", "--pp-size 0", says="--pp-size 0: at least 1")
    yield file("--pp-size -2 in a file", "--pp-size -2", says="--pp-size -2: at least 1")
    yield file("--pp-size without a number", "--pp-size", says="give it a number")
    yield file("--tp-size \u00b2 in a file", "--tp-size \u00b2", says="not a whole number")
    yield file("--pp-size of 400 digits", f"--pp-size {'9' * 400}", says="--pp-size")
    yield file("--pp-size 100000 in a file", "--pp-size 100000", says="--pp-size 100000")
    yield file("--nnodes 0 in a file", "--nnodes 0", says="--nnodes 0: at least 1")
    yield file("--nnodes 3 for 2 stages", "--nnodes 3", "--pp-size 2", says="--nnodes 3")
    yield file("--port 0 in a file", "--port 0", says="from 1 to 65535")
    yield file("--port 65536 in a file", "--port 65536", says="from 1 to 65535")
    yield file("--port that is none in a file", "--port http", says="not a whole number")
    yield file("an argument that sglang lacks", "--no-such 1", says="--no-such")
    yield file("RELEASE that there is not", "RELEASE=9.9", says="RELEASE=9.9")
    yield file("PYTHON and RELEASE", "PYTHON=/x", "RELEASE=0.5.2", says="leave one")
    yield file("a JSON that is none", "--json-model-override-args {", says="is no JSON object")
    yield file("a JSON that is a list", "--json-model-override-args []", says="is no JSON object")
    yield file("a JSON nested 100 000 deep", f"--json-model-override-args {'[' * 100_000}",
               says="is no JSON object")  # fmt: skip
    yield _run("a model's folder that is not there", "--model", "/no/model", says="/no/model")
    for name in ("AWS_ACCESS_KEY_ID", "MY_PAT", "SIGNING_KEY", "DB_PWD", "SESSION_COOKIE",
                 "PASSPHRASE", "HF_TOKEN"):  # fmt: skip
        yield file(f"{name} in a file", f"{name}=xyzzy-plugh", says=f"{name} holds a secret")
    yield file("a proxy with a password", "HTTPS_PROXY=http://u:xyzzy@h:1", says="holds a secret")
    yield file("--api-key in a file", "--api-key xyzzy", says="--api-key holds a secret")
    yield file("a bearer value", "X_HEADER='Bearer xyzzy-plugh-1'", says="holds a secret")
    yield _run("an argument file of 20 MB", *CASE, says="server_args_x.txt",
               prepare=content("server_args_x.txt", b"--a 1\n" * 3_500_000))  # fmt: skip
    yield _run("an argument file that is a folder", *CASE, says="server_args_x.txt",
               prepare=folder("server_args_x.txt"))  # fmt: skip
    yield _run("no server_args_base.txt", says="server_args_base.txt",
               prepare=lambda made: (made.root / "server_args_base.txt").unlink())  # fmt: skip


def _streams() -> Iterator[Fault]:
    trace = ("analyze", str(CHECKOUT / "tests/data/traces/h200_case_A"))
    yield _run("stdout closed", shell=">&-", says="stdout is closed")
    yield Fault("stdout closed, no interpreter yet", (*RUN, "--dry-run"), "is closed", shell=">&-")
    yield _dry("stderr closed", says="# files", status=0, shell="2>&-")
    yield _dry("stdin closed", says="# files", status=0, shell="<&-")
    yield _dry("stdout that is full", says="No space left", shell=">/dev/full")
    yield _dry("| head", says="", status=0, shell="| head -n 1")
    yield Fault("--help into what is full", (*RUN, "--help"), "room", shell=">/dev/full")
    yield Fault("--help | head", (*RUN, "--help"), "USAGE", 0, shell="| head -n 1")
    for name, words in (("analyze", trace), ("help", ("--help",))):
        says = "usage" if name == "help" else "decode"
        yield _command(f"{name}: stdout closed", *words, says="closed", shell=">&-")
        yield _command(f"{name}: stderr closed", *words, says=says, status=0, shell="2>&-")
        yield _command(f"{name}: stdout full", *words, says="No space", shell=">/dev/full")
        yield _command(f"{name}: | head", *words, says="", status=0, shell="| head -n 1")
    yield _client("client: --help into what is full", "--help", says="No space", shell=">/dev/full")
    yield _client("client: stderr closed", "--nope", says="", shell="2>&-")
    yield _env("collect_env: stdout full", says="No space", shell=">/dev/full")
    yield _env("collect_env: stdout closed", says="closed", shell=">&-")
    yield _env("collect_env: | head", says="##", status=0, shell="| head -n 1")
    yield _env("collect_env: --help into what is full", "--help", says="room", shell=">/dev/full")


def _clients() -> Iterator[Fault]:
    for url in ("http://127.0.0.1:99999", "http://h:0", "http://h:\u00b2", "http://[::1", "h:80",
                "http://h\x1b[1m", "http://u:p@h", ""):  # fmt: skip
        yield _client(f"client: --base-url {url[:24]}", "--base-url", url, says="--base-url: give")
    for name, value in (
        ("--batch", "0"), ("--batch", "-1"), ("--concurrency", "\u00b2"), ("--num-prompts", "1e9"),
        ("--request-rate", "nan"), ("--request-rate", "-1"), ("--duration", "inf"),
        ("--max-new-tokens", ""), ("--input-len", "9" * 30), ("--stall-timeout", "0"),
        ("--max-error-rate", "2"), ("--warmup", "-1"), ("--seed", "x"), ("--reader", "x"),
        ("--backend", "vllm"),
    ):  # fmt: skip
        yield _client(f"client: {name} {value}", name, value, says=f"{name}")
    yield _client("client: no such option", "--nope\x1b[1m", says="--nope")
    yield _client("client: no such prompts", "--prompts", "/no\x1b[1m", says="/no")
    yield _client("client: prompts that are a folder", "--prompts", "/tmp", says="/tmp")
    yield _client("client: prompts that are empty", "--prompts", "/dev/null", says="/dev/null")
    yield _client("client: prompts that are no text", "--prompts", "p", says="p",
                  prepare=content("p", bytes(range(256)) * 99))  # fmt: skip
    yield _client("client: nobody listens", "--base-url", "http://127.0.0.1:9", says="127.0.0.1:9",
                  status=1)  # fmt: skip
    yield _client("client: --output in no folder", "--output", "/no/where/x.json", says="/no/where")
    yield _client("client: --output that is a folder", "--output", "/tmp", says="/tmp")


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HOSTILE = {  # what a server answers: the bytes, and what the client says
    "a negative chunk size": (CHUNKED + b"-5\r\n" + b"x" * 99, "chunk size"),
    "a chunk size of 5000 digits": (CHUNKED + b"9" * 5000 + b"\r\n", "chunk size"),
    "a chunk size that is superscript": (CHUNKED + b"\xb2\r\n", "chunk size"),
    "a size line without an end": (CHUNKED + b"1" * (1 << 22), "chunk size"),
    "a head without an end": (OK + b"X: " + b"y" * (1 << 22), ""),
    "what is no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\x1b[2J" + b"\0" * 999, ""),
    "a status of 5000 digits": (b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n", ""),
    "nothing": (b"", ""),
    "an event nested 100 000 deep": (OK + b"\r\ndata: " + b"[" * 100_000 + b"\n\n", ""),
    "an error with ESC and bidi": (
        b'HTTP/1.1 500 No\r\n\r\n{"message": "\x1b[2J \\u001b]0;x\\u0007 \\u202e"}', "500"),
    "a redirect to itself": (b"HTTP/1.1 302 F\r\nLocation: /generate\r\n\r\n", "302"),
    "a length of 5000 digits": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", ""),
    "compressed data that is none": (OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8bno", ""),
    "a token count beyond int64": (
        OK + b'\r\ndata: {"text": "x", "meta_info": {"completion_tokens": 1e300}}\n\n', ""),
    "an event of 32 MB": (OK + b"\r\ndata: " + b"x" * (32 << 20) + b"\n\n", ""),
}  # fmt: skip


def _hostile_servers() -> Iterator[Fault]:
    words = ("--base-url", "http://127.0.0.1:PORT", "--batch", "1")
    for what, (data, says) in HOSTILE.items():
        for hold in (False, True):
            # the end of what is held is waited for, where the client does not see a fault before
            limit = ("--stall-timeout", "5" if hold and says != "chunk size" else "600")
            name = f"client: the server answers {what}" + ", and holds on" * hold
            yield _client(name, *words, *limit, "--max-new-tokens", "2", says=says, status=1,
                          prepare=answering(data, hold))  # fmt: skip


def _environments() -> Iterator[Fault]:
    for port in ("0", "65536", "\u00b2", "-1", "x", "", "1\x1b[1m"):
        yield _env(f"collect_env: --port {port}", "--port", port, says="not a port number")
    yield _env("collect_env: no such option", "--nope\x1b[1m", says="--nope")
    yield _env("collect_env: an option without value", "--port", says="--port needs a value")
    yield _env("collect_env: no such Python", "--python", "/no\x1b[1m", says="no such program")
    yield _env("collect_env: a Python that is none", "--python", "/bin/true", says="/bin/true",
               status=0)  # fmt: skip
    yield _env("collect_env: no run to bundle", "--bundle", "/no/run", says="no run of run_repro")
    yield _env("collect_env: no place for JSON", "--json-file", "/no/x", says="/no/x",
               status=1)  # fmt: skip
    yield _env("collect_env: JSON onto -", "--json-file", "-", says="name one, or give --json")
    yield _env("collect_env: JSON onto a folder", "--json-file", "/tmp", says="/tmp", status=1)


DEEP = b"[" * 100_000
EVENT = b'{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":1,"ts":%s,"dur":1}'
BROKEN = {
    "an empty trace": b"",
    "a trace of zeros": bytes(9999),
    "a trace that is no JSON": b"\x7fELF" + bytes(range(256)) * 20,
    "a trace nested 100 000 deep": b'{"traceEvents": ' + DEEP,
    "an event nested 100 000 deep": b'{"traceEvents": [{"a": ' + DEEP,
    "a time beyond int64": b"[" + EVENT % b"1e300" + b"]",
    "a time of 400 digits": b"[" + EVENT % (b"9" * 400) + b"]",
    "a gzip that is none": b"\x1f\x8bnone",
    "a gzip that is cut off": gzip.compress(b"[" + EVENT % b"1" * 999)[:99],
    "a gzip of 8 MB in 8 kB": gzip.compress(b"[" + b" " * (8 << 20), 9),
}


def _commands() -> Iterator[Fault]:
    yield _command("no such command", "nope\x1b[1m", says="no command")
    for name, *words in (
        ("analyze",), ("merge", "-o", "ROOT/m.json"), ("report",), ("open",), ("compare", "/tmp"),
    ):  # fmt: skip
        yield _command(f"{name}: nothing there", name, "/no/such", *words, says="/no/such")
        yield _command(f"{name}: ESC in its name", name, "/no/\x1b[1m", *words, says="/no/")
        yield _command(f"{name}: no argument", name, says=f"{name}: ")
        yield _command(f"{name}: no such option", name, "--nope", says=f"{name}: ")
    yield _command("report: a folder without a run", "report", "ROOT/logs", says="has neither",
                   status=1, prepare=folder("logs"))  # fmt: skip
    yield _command("compare: folders without a run", "compare", "a", "b", says="has neither",
                   status=1, prepare=together(folder("a"), folder("b")))  # fmt: skip
    for what, data in BROKEN.items():
        name = "t/1-TP-0-PP-0.trace.json" + (".gz" if "gzip" in what else "")
        make = content(name, data)
        status, says = (0, "cut short") if "cut off" in what else (1, "no trace could be read")
        yield _command(f"analyze: {what}", "analyze", "t", says=says, status=status, prepare=make)
        yield _command(f"merge: {what}", "merge", "t", "-o", "m.json", says=says, status=status,
                       prepare=make, leaves="m.json" if status == 0 else "")  # fmt: skip
    make = content("t/1-TP-0-PP-99999999.trace.json", b"[" + EVENT % b"1" + b"]")
    yield _command("analyze: rank 99999999", "analyze", "t", says="no GPU kernels", status=0,
                   prepare=make)  # fmt: skip
    real = str(CHECKOUT / "tests/data/traces/h200_case_A")
    yield _command("merge: into no folder", "merge", real, "-o", "/proc/x.json",
                   says="/proc/x.json", status=1)  # fmt: skip
    yield _command("merge: onto a folder", "merge", real, "-o", "/tmp", says="-o /tmp: a folder")
    yield _command("analyze: --json into /proc", "analyze", real, "--json", "/proc/x.json",
                   says="/proc/x.json", status=1)  # fmt: skip
    yield _command(
        "analyze: --what-if of nothing", "analyze", real, "--what-if", "x", says="is none of"
    )
    yield _command("analyze: --what-if nan", "analyze", real, "--what-if", "transfer=nan",
                   says="transfer=nan")  # fmt: skip
    for what, text in (
        ("is cut off", b'{"launches": ['), ("is empty", b""), ("holds a list", b"[]"),
        ("is nested deep", DEEP), ("is no text", bytes(range(256))),
    ):  # fmt: skip
        make = content("out/logs/run.json", text)
        for name in ("report", "summary", "compare"):
            words = ("out", "out") if name == "compare" else ("out",)
            yield _command(f"{name}: a run.json that {what}", name, *words, says="run.json",
                           status=2 if name == "summary" else 1, prepare=make)  # fmt: skip
    for step, *words in (
        ("begin", "--root", "."), ("wait-ready", "1"), ("measure", "1", "--root", "."),
        ("profile", "1"), ("explain",), ("finish",), ("wait-ready", "x"),
    ):  # fmt: skip
        says = "pid" if "x" in words else "/no/such"
        what = "a pid that is none" if "x" in words else "no run there"
        yield _command(f"{step}: {what}", step, "/no/such", "x", *words, says=says)
        if "x" not in words:
            yield _command(f"{step}: no argument", step, says=f"{step}: ")
    for words in (("--ranks", "0"), ("--ranks", "x"), ("--ranks", "99999"), ("--nope",)):
        yield _command(f"probe: {' '.join(words)}", "probe", *words, says="probe: ")


FAULTS = [
    *_numbers(), *_options(), *_pythons(), *_places(), *_argument_files(), *_streams(),
    *_clients(), *_hostile_servers(), *_environments(), *_commands(),
]  # fmt: skip


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder that any user may enter."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def outcomes(chosen: list[Fault]) -> list[tuple[Fault, Outcome]]:
    """Each fault injected, several at a time, in a folder that any user may enter."""
    with place() as base:

        def job(number: int) -> Callable[[], Outcome]:
            return lambda: inject(chosen[number], base / str(number))

        found = at_once({number: job(number) for number in range(len(chosen))})
    return [(fault, found[number]) for number, fault in enumerate(chosen)]


def main() -> int:
    """Print the table; 1 where an outcome is objected to."""
    wanted = [fault for fault in FAULTS if not sys.argv[1:] or re.search(sys.argv[1], fault.what)]
    bad = 0
    print("| fault | how injected | outcome | exit | left |\n|---|---|---|---|---|")
    for fault, outcome in outcomes(wanted):
        found = objections(fault, outcome)
        bad += bool(found)
        left = ", ".join(outcome.left) or "nothing"
        cells = [fault.what, f"`{fault.command}`", outcome.said[:160], str(outcome.status), left]
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        row = ascii(f"| {row} |")[1:-1] + (f"  <-- {'; '.join(found)}" if found else "")
        print(row, flush=True)
    print(f"\n{len(wanted)} faults, {bad} objected to", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

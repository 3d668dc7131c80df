"""collect_env.sh as a user sees it: run it, read what it prints."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_sglang.harness import wait_until
from planted_secrets import NAMED, SECRETS
from programs import ran

from repro_pp_graphs.environment import (
    facts,
    interpreter,
    libraries,
    packages,
    programs,
    running_servers,
    system,
)

pytestmark = pytest.mark.launches

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "collect_env.sh"
SECTIONS = ["summary", "system", "gpus", "network", "software", "environment", "server"]
CLOSED_PORT = "1"
# All that collect_env.sh may rely on.
COREUTILS = ("date", "df", "dirname", "nproc", "tail", "timeout", "uname", "uniq")

NVIDIA_SMI = r"""#!/bin/bash
case "$*" in
  --query-gpu=*)
    fields=${1#*=}
    if [[ ,$fields, == *,fabric.state,* ]]; then
      echo 'Field "fabric.state" is not a valid field to query.'; exit 2
    fi
    for gpu in 0 1 2 3 4 5 6 7; do
      row=""
      for field in ${fields//,/ }; do
        case $field in
          name) value="NVIDIA H100 80GB HBM3" ;;
          driver_version) value=570.86.15 ;;
          memory.total) value="81559 MiB" ;;
          clocks.sm) value="1980 MHz"; [[ $gpu == 7 ]] && value="345 MHz" ;;
          persistence_mode) value=Disabled ;;
          pci.bus_id) value="00000000:0$gpu:00.0" ;;
          clocks_*_reasons.active) value=0x0000000000000000; [[ $gpu == 7 ]] && value=0x48 ;;
          ecc.errors.uncorrected.volatile.total) value=0; [[ $gpu == 3 ]] && value=2 ;;
          *) value="[N/A]" ;;
        esac
        row+=", $value"
      done
      echo "${row#, }"
    done ;;
  --query-compute-apps=*) echo "00000000:01:00.0, 4242, /home/alice/bin/python, 70000 MiB" ;;
  "topo -m" | "topo -p2p r")
    printf '\t\e[4mGPU0\tGPU1\tGPU2\tGPU3\tGPU4\tGPU5\tGPU6\tGPU7\t'
    printf 'CPU Affinity\tNUMA Affinity\e[0m\n'
    for i in 0 1 2 3 4 5 6 7; do
      printf 'GPU%s' "$i"
      for j in 0 1 2 3 4 5 6 7; do
        cell=NV18; [[ $i == "$j" ]] && cell=' X '
        printf '\t%s' "$cell"
      done
      printf '\t0-47,96-143\t0\n'
    done
    printf '\nLegend:\n\n  X    = Self\n' ;;
  "-q -d PERFORMANCE,ROW_REMAPPER")
    for gpu in 0 1 2 3 4 5 6 7; do
      pending=No; [[ $gpu == 6 ]] && pending=Yes
      echo "GPU 00000000:0$gpu:00.0"
      echo "    Performance State                 : P0"
      echo "    Clocks Event Reasons Counters"
      echo "        SW Power Capping              : ${gpu}00 us"
      echo "    Remapped Rows"
      echo "        Correctable Error             : 0"
      echo "        Pending                       : $pending"
      echo "        Bank Remap Availability Histogram"
      echo "            Max                       : 640 bank(s)"
    done ;;
  "nvlink --status")
    for gpu in 0 1 2 3 4 5 6 7; do
      echo "GPU $gpu: NVIDIA H100 80GB HBM3 (UUID: GPU-12345678-1234-1234-1234-123456789abc)"
      for link in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
        speed="26.562 GB/s"; [[ $gpu$link == 517 ]] && speed="<inactive>"
        echo "	 Link $link: $speed"
      done
    done ;;
esac
"""


def run(
    *options: str, env: dict[str, str] | None = None, script: Path = SCRIPT
) -> subprocess.CompletedProcess[str]:
    return ran(
        [shutil.which("bash") or "bash", str(script), *options],
        env=env if env is not None else bare(),
    )


def bare(path: str = "/usr/bin:/bin", **variables: str) -> dict[str, str]:
    """An environment with nothing else, and with time for what a busy machine is slow to answer."""
    return {"PATH": path, "REPRO_COLLECT_PATIENCE": "1000", **variables}


HURRIED = {"REPRO_COLLECT_PATIENCE": "1"}  # for what never answers


def collect(*options: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    if "--port" not in options:
        options = (*options, "--port", CLOSED_PORT)
    done = run("--json", "--python", sys.executable, *options, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def tool(folder: Path, name: str, text: str) -> str:
    """Put an executable in front of the usual PATH; returns that PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@contextmanager
def answering(pages: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """A server on 127.0.0.1 that knows these pages; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages.get(self.path, (404, b'{"detail":"Not Found"}'))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield str(httpd.server_port)
        finally:
            httpd.shutdown()
            thread.join()


@contextmanager
def running(*arguments: str) -> Iterator[int]:
    """A sleeping process whose command line looks like a server's; yields its pid."""
    sleeper = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        [*sleeper, "sglang.launch_server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.stdin.close()


# --- shape of the output -----------------------------------------------------------------


def test_text_has_the_sections_in_order_each_in_a_closed_code_block() -> None:
    done = run("--port", CLOSED_PORT)
    assert done.returncode == 0
    assert done.stderr == ""
    heads = re.findall(r"^## (.+)$", done.stdout, re.M)
    assert [head.split()[0].lower() for head in heads] == SECTIONS
    assert done.stdout.count("```text\n") == done.stdout.count("\n```\n") == len(SECTIONS)


def test_json_and_text_hold_the_same_facts(tmp_path: Path) -> None:
    env = bare(tool(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI), NCCL_DEBUG='a "quoted" \\ word')
    facts = collect(env=env)
    text = run("--python", sys.executable, "--port", CLOSED_PORT, env=env).stdout
    assert list(facts) == ["schema", *SECTIONS]
    assert facts["environment"]["NCCL_DEBUG"] == 'a "quoted" \\ word'
    moving = {"date", "load average", "memory", "/dev/shm", "cgroup throttled periods"}
    moving |= {key for key in facts["server"] if key.startswith("process ")}
    for section in SECTIONS:
        for key, value in facts[section].items():
            if key not in moving:
                assert "".join(f"{key}{value}".split()) in "".join(text.split()), key


def test_values_with_control_bytes_still_make_valid_json() -> None:
    odd = b"x\x1b[31mred\x1b[0m\x01\xff\xc3\xa9\nnext"
    env = {os.fsencode(key): os.fsencode(value) for key, value in bare().items()}
    done = subprocess.run(
        ["bash", str(SCRIPT), "--json", "--port", CLOSED_PORT],
        env={**env, b"NCCL_ODD": odd},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["environment"]["NCCL_ODD"] == "xred????\nnext"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--bogus"], "--bogus"),
        (["--port"], "--port needs a value"),
        (["--port", "0"], "not a port number"),
        (["--port", "65536"], "not a port number"),
        (["--port", "x"], "not a port number"),
        (["--python"], "--python needs a value"),
        (["--python", "/no/such/python"], "--python /no/such/python: no such program"),
        (["--python", "/"], "--python /: no such program"),
    ],
)
def test_wrong_options_exit_2_with_one_line(options: list[str], complaint: str) -> None:
    done = run(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_shows_every_option_and_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("--json", "--no-redact", "--port", "--python", "examples:"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


# --- what is absent ----------------------------------------------------------------------


SHORT = ["date", "OS", "kernel", "CPU", "memory", "/dev/shm", "ulimit", "GPUs"]


def short_list(text: str) -> tuple[str, dict[str, str]]:
    """Why it is short, and the facts by name; a value may have further lines."""
    head, body = re.fullmatch(
        r"## system \(a short list: (.+)\)\n```text\n(.+)\n```\n", text, re.S
    ).groups()
    parts = re.split(rf"^({'|'.join(SHORT)}) +", body, flags=re.M)
    assert parts[0] == "" and parts[1::2] == SHORT
    return head, dict(zip(SHORT, (value.rstrip("\n") for value in parts[2::2]), strict=True))


def test_bash_and_coreutils_are_enough(tmp_path: Path) -> None:
    for name in ("bash", *COREUTILS):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    script = Path(shutil.copy(SCRIPT, tmp_path))  # beside the original there may be a .venv-cpu
    done = run(env={"PATH": str(tmp_path)}, script=script)
    assert (done.returncode, done.stderr) == (0, "")
    why, facts = short_list(done.stdout)
    assert why == "python3: not found"
    assert facts["GPUs"] == "nvidia-smi: not found"
    assert facts["CPU"].startswith(f"{os.cpu_count()} CPUs, ")
    assert facts["kernel"] == f"{os.uname().release} {os.uname().machine}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for chroot")
def test_a_chroot_without_proc_and_dev_is_enough(tmp_path: Path) -> None:
    for name in ("bash", *COREUTILS):
        program = Path(shutil.which(name) or name).resolve()
        linked = ran(["ldd", program], check=True)
        places = {path: path for path in re.findall(r"(/\S+) \(0x", linked.stdout)}
        for place, path in {**places, f"/bin/{name}": str(program)}.items():
            copy = tmp_path / place.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    shutil.copy(SCRIPT, tmp_path)
    done = ran(
        [shutil.which("chroot") or "chroot", tmp_path, "/bin/bash", "/collect_env.sh"],
        env={"PATH": "/bin"},
        check=True,
    )
    assert done.stderr == ""
    why, facts = short_list(done.stdout)
    assert (why, facts["OS"], facts["memory"]) == ("python3: not found", *["not readable"] * 2)
    assert facts["/dev/shm"] == "not mounted"


def test_nothing_newer_than_bash_4_4_is_used() -> None:
    newer = (
        r"\$\{[a-z_]+@[UuLKk]\}", r"\bwait -p\b", "EPOCH(REAL)?(TIME|SECONDS)", "SRANDOM",
        "BASH_ARGV0",
        r"\$\{ ", "assoc_expand_once", "localvar_inherit", "globskipdots", "varredir_close",
        r"\bread -E\b", r"\$\{\|", r"compgen -V", r"printf .*%Q", r"\bBASH_MONOSECONDS\b",
    )  # fmt: skip
    text = SCRIPT.read_text()
    assert [feature for feature in newer if re.search(feature, text)] == []


def pythons() -> Iterator[Path]:
    """The interpreters of this machine from 3.8 on, the oldest first."""
    for minor in range(8, sys.version_info.minor):
        found = [shutil.which(f"python3.{minor}") or ""]
        found += map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        for python in filter(None, found):
            answer = ran([python, "-V"])
            if answer.stdout.startswith(f"Python 3.{minor}."):
                yield Path(python)
    yield Path(sys.executable)


def test_the_oldest_python_here_collects_the_same(tmp_path: Path) -> None:
    oldest = next(pythons())
    path = tool(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI)
    tool(tmp_path / "bin", "python3", f'#!/bin/bash\nexec {oldest} "$@"\n')
    env = bare(path, NCCL_DEBUG="INFO", MY_TOKEN="xyzzy-xyzzy", NCCL_X="xyzzy-xyzzy")
    facts = collect("--no-redact", env=env)
    (tmp_path / "bin" / "python3").unlink()
    newer = collect("--no-redact", env=env)
    assert facts["environment"]["NCCL_X"] == "<masked>"
    # a Python that has no time to answer, on a busy machine, is another test's matter
    answered = not any("Python probe" in its["software"] for its in (facts, newer))
    sections = [name for name in SECTIONS if answered or name not in ("software", "summary")]
    # other people's servers come and go meanwhile
    keys, newer_keys = (
        {name: [key for key in its[name] if key[:8] != "process "] for name in sections}
        for its in (facts, newer)
    )
    assert keys == newer_keys
    options = ("--json", "--no-redact", "--port", CLOSED_PORT)  # the path may hold a user's name
    asked = json.loads(run(*options, "--python", str(oldest)).stdout)
    places = (str(oldest.parent), str(oldest.resolve().parent))  # a venv's is its own
    assert asked["software"]["Python executable"].startswith(places)


def test_the_oldest_python_here_imports_all_that_any_python_may_run() -> None:
    names = sorted(path.stem for path in (ROOT / "repro_pp_graphs/environment").glob("[a-z]*.py"))
    modules = ", ".join(f"repro_pp_graphs.environment.{name}" for name in names)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}"
    subprocess.run([next(pythons()), "-I", "-S", "-c", code], check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "repro_pp_graphs/environment").glob("*.py")))
def test_what_any_python_runs_is_written_for_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
        )
    }
    assert imported <= {*sys.stdlib_module_names, "repro_pp_graphs"}


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    for name in ("bash", *COREUTILS):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    tool(tmp_path, "python3", "#!/bin/bash\necho\n")  # what 3.6 answers to whether it will do
    env = {"PATH": str(tmp_path)}
    assert run("--help", env=env | {"PYTHON": sys.executable}).stdout.startswith("usage:")
    root = tmp_path / "root"
    shutil.copytree(ROOT / "repro_pp_graphs" / "environment", root / "repro_pp_graphs/environment")
    script = Path(shutil.copy(SCRIPT, root))
    why, _ = short_list(run(env=env, script=script).stdout)
    assert why == "python3: older than 3.8, or parts are missing"


def test_without_python_no_variable_is_shown_as_nothing_masks_it(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    given = {f"NCCL_{number}": text for number, (text, _) in enumerate(SECRETS.values())}
    shown = run(env=bare(PYTHON="none", NCCL_DEBUG="INFO", **given), script=script).stdout
    _, facts = short_list(shown)
    assert facts.keys() == set(SHORT) and "NCCL" not in shown and "INFO" not in shown
    assert not [secret for _, secret in SECRETS.values() if secret in shown]


@pytest.mark.parametrize(
    ("said", "status", "shown"),
    [
        ("H100, 570.86, 81559 MiB\n" * 8, 0, ["8 H100, 570.86, 81559 MiB"]),
        ("A, 1, 2\nB, 1, 2\nB, 1, 2\n", 0, ["1 A, 1, 2", "2 B, 1, 2"]),
        ('say "no" \\ \x1b[1m\u00e9\n', 9, ['1 say "no" \\ [1m (failed)']),
    ],
)
def test_the_short_list_says_what_nvidia_smi_does(
    tmp_path: Path, said: str, status: int, shown: list[str]
) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    (tmp_path / "said").write_text(said)
    smi = f"#!/bin/bash\ncat {tmp_path}/said\nexit {status}\n"
    done = run(env=bare(tool(tmp_path / "bin", "nvidia-smi", smi)), script=script)
    assert (done.returncode, done.stderr) == (0, "")
    _, facts = short_list(done.stdout)
    assert [" ".join(line.split()) for line in facts["GPUs"].splitlines()] == shown
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("option", ["--bundle", "--json-file", "--bogus", "--json", "--help"])
def test_without_its_package_it_takes_no_option(tmp_path: Path, option: str) -> None:
    done = run(option, script=Path(shutil.copy(SCRIPT, tmp_path)))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "options take Python 3.8 or newer (repro_pp_graphs/environment: copy it" in done.stderr


def test_one_collection_gives_text_and_json(tmp_path: Path) -> None:
    path = tmp_path / "env.json"
    done = run("--json-file", str(path), "--port", CLOSED_PORT)
    facts = json.loads(path.read_text())
    assert f"date    {facts['summary']['date']}\n" in done.stdout
    assert re.search(
        rf"^load average +{re.escape(facts['system']['load average'])}$", done.stdout, re.M
    )
    assert list(tmp_path.iterdir()) == [path]
    nowhere = run("--json-file", str(tmp_path / "no" / "env.json"), "--port", CLOSED_PORT)
    said = " ".join(nowhere.stderr.split())  # wrapped where the path is long
    assert nowhere.returncode == 1 and said.endswith(": name a place that can be written")


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    path = tool(
        tmp_path / "bin",
        "nvidia-smi",
        f"#!/bin/bash\necho $$ >{pid}.new\nmv {pid}.new {pid}\nsleep 3600\n",
    )
    command = ["bash", str(SCRIPT), "--port", CLOSED_PORT]
    with subprocess.Popen(command, env=bare(path), stdout=subprocess.PIPE) as collector:
        while not pid.exists():
            assert collector.poll() is None
            time.sleep(0.01)
        collector.terminate()
        assert collector.wait() == 143
    stat = Path("/proc", pid.read_text().strip(), "stat")

    def ended() -> bool:
        try:
            return stat.read_text().rsplit(") ", 1)[1].startswith("Z")
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(ended)  # a signal takes effect when the process next runs


def test_a_signal_that_comes_while_a_program_begins_ends_it_too(monkeypatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    class Begun(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            begun.append(self)
            # not to another thread, of which collect_env has none
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    monkeypatch.setattr(programs.subprocess, "Popen", Begun)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    found = programs.Programs(600)
    try:
        with pytest.raises(SystemExit):
            found.start(600, "sleep", "600")
    finally:
        signal.signal(signal.SIGTERM, before)
        found.stop()
    try:
        assert begun[0].wait(600) == -signal.SIGTERM
    finally:
        begun[0].kill()


def python_with(folder: Path, package: str) -> None:
    """A python whose only package besides the standard library's is an empty `package`."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    where = f'PYTHONPATH={folder} exec {sys.executable} -S "$@"'
    tool(folder / "bin", "python", f"#!/bin/bash\n{where}\n")


@pytest.mark.parametrize(
    ("default", "taken"), [("torch", ".venv-cpu"), ("sglang", "default"), (None, ".venv-cpu")]
)
def test_an_environment_made_here_is_asked_where_the_default_python_has_no_sglang(
    tmp_path: Path, default: str | None, taken: str
) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    package = tmp_path / "repro_pp_graphs" / "environment"
    shutil.copytree(ROOT / "repro_pp_graphs" / "environment", package)
    python_with(tmp_path / ".venv-0.5.2", "torch")
    python_with(tmp_path / ".venv-cpu", "sglang")
    if default:
        python_with(tmp_path / "default", default)
    env = bare(PYTHON=f"{tmp_path}/default/bin/python")
    options = ("--json", "--no-redact", "--port", CLOSED_PORT)
    software = json.loads(run(*options, env=env, script=script).stdout)["software"]
    assert software["sglang found"] == f"{tmp_path}/{taken}/sglang/__init__.py"
    given = run(*options, "--python", f"{tmp_path}/.venv-0.5.2/bin/python", env=env, script=script)
    asked = json.loads(given.stdout)["software"]
    assert asked["torch found"] == f"{tmp_path}/.venv-0.5.2/torch/__init__.py"


def test_no_bytecode_is_written_where_that_is_asked_for(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    package = tmp_path / "repro_pp_graphs" / "environment"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "repro_pp_graphs" / "environment", package, ignore=leave)
    for setting, written in (("1", False), ("", True)):
        env = bare(PYTHONDONTWRITEBYTECODE=setting)
        facts = json.loads(run("--json", "--port", CLOSED_PORT, env=env, script=script).stdout)
        assert "torch" in facts["summary"]  # not the short list
        assert any(tmp_path.rglob("*.pyc")) is written


def test_text_fits_80_columns_but_for_single_long_words(tmp_path: Path) -> None:
    env = bare(
        f"{tool(tmp_path / 'bin', 'nvidia-smi', NVIDIA_SMI)}:/a/path:{'/quite/long' * 9}",
        NCCL_DEBUG_SUBSYS="many words " * 30,
    )
    lines = run("--port", CLOSED_PORT, env=env).stdout.splitlines()
    indented = [line for line in lines if line.startswith("  ")]  # tables, and wrapped values
    assert any(line.strip().startswith("words many") for line in indented)
    wide = [line for line in lines if len(line) > 80 and max(map(len, line.split())) < 40]
    wide = [line for line in wide if "   " not in line]  # rows of tables
    assert wide == []
    assert any(line.startswith("PATH ") and len(line) > 80 for line in lines)


def test_a_python_that_hangs_is_given_up(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    tool(tmp_path, "slow", "#!/bin/bash\nprintf 'software\\tearly\\tkept\\n'\nexec sleep 600\n")
    done = run("--json", "--python", str(slow), "--port", CLOSED_PORT, env=bare(**HURRIED))
    facts = json.loads(done.stdout)
    assert "no answer in" in facts["software"]["Python probe"]
    assert facts["software"]["early"] == "kept"


@pytest.mark.parametrize(
    ("text", "factor"), [("", 1), ("10", 10), ("0.1", 1), ("-1", 1), ("nan", 1), ("inf", 1000)]
)
def test_a_slow_machine_may_be_given_more_time(text: str, factor: int, monkeypatch) -> None:
    monkeypatch.setenv(programs.PATIENCE, text)
    assert programs.Programs(4).seconds == 4 * factor


def test_called_through_a_link_from_elsewhere_it_finds_its_package(tmp_path: Path) -> None:
    (tmp_path / "link.sh").symlink_to(SCRIPT)
    done = run("--port", CLOSED_PORT, script=tmp_path / "link.sh")
    assert "Python executable" in done.stdout


def test_copied_alone_it_says_what_to_copy_too(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    why, facts = short_list(run(script=script).stdout)
    assert why == "repro_pp_graphs/environment: copy it too"
    assert facts["kernel"].startswith(os.uname().release)


def test_a_very_long_value_is_cut_in_the_open_and_masked() -> None:
    text = "aB3" * 30000 + " end"
    assert collect(env=bare(NCCL_BIG=text))["environment"]["NCCL_BIG"] == "<masked> (cut)"


def test_names_from_outside_are_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    name = f'$(touch {trap})`touch {trap}`a[$(touch {trap})]"quoted"'
    body = json.dumps({name: name, "version": "0.5.21"}).encode()
    with answering({"/server_info": (200, body)}) as port:
        # its folder's name may hold the user's, which is masked
        facts = collect("--port", port, "--no-redact", env=bare(NCCL_TRAP=name))
    assert facts["environment"]["NCCL_TRAP"] == name
    assert name in facts["server"].values()
    assert not trap.exists()


# --- GPUs --------------------------------------------------------------------------------


def test_eight_gpus_are_told_in_one_line_a_fact(tmp_path: Path) -> None:
    facts = collect(env=bare(tool(tmp_path, "nvidia-smi", NVIDIA_SMI)))
    gpus = facts["gpus"]
    assert facts["summary"]["GPUs"] == "8 x NVIDIA H100 80GB HBM3"
    assert facts["summary"]["driver"] == "570.86.15"
    assert facts["summary"]["topology"] == "28 x NV18"
    assert gpus["clocks.sm"] == "1980 MHz (0,1,2,3,4,5,6), 345 MHz (7)"
    assert gpus["clocks_event_reasons.active"] == (
        "none (0,1,2,3,4,5,6), hardware slowdown + hardware thermal (7)"
    )
    assert gpus["pci.bus_id"].startswith("00000000:00:00.0, 00000000:01:00.0, ")
    assert facts["summary"]["look at"].count("throttled") == 1
    assert "fabric.state" not in gpus  # this driver does not know it
    assert gpus["topology"].splitlines()[1].split()[:3] == ["GPU0", "X", "NV18"]
    assert "Legend" not in gpus["topology"]
    assert gpus["NVLinks, all GPUs"] == "143 x 26.562 GB/s, 1 x <inactive>"
    assert "/home/<user>/bin/python" in gpus["processes"]
    assert gpus["remapped rows, pending"] == "No (0,1,2,3,4,5,7), Yes (6)"
    assert gpus["remapped rows, correctable error"] == "0"
    assert gpus["held back, sw power capping"].endswith("600 us, 700 us")
    assert not [key for key in gpus if "max" in key and "remapped" in key]
    assert "remapped rows, pending" in facts["summary"]["look at"]

    for worry in ("throttled", "uncorrected ECC errors: 0 (0,1,2,4,5,6,7), 2 (3)", "persistence"):
        assert worry in facts["summary"]["look at"]


def test_amd_gpus_are_told_by_rocm_smi(tmp_path: Path) -> None:
    said = "GPU[0] : Card Series: AMD Instinct MI300X"
    path = tool(tmp_path, "rocm-smi", f'#!/bin/bash\necho "{said}"\n')
    assert collect(env=bare(path))["gpus"]["AMD tools"] == said
    assert collect()["gpus"]["AMD tools"] == "amd-smi, rocm-smi: not found"


def test_nvidia_smi_that_hangs_is_given_up_and_asked_no_more(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    path = tool(tmp_path / "bin", "nvidia-smi", f"#!/bin/bash\necho x >>{calls}\nsleep 600\n")
    facts = collect(env=bare(path, **HURRIED))
    assert facts["gpus"]["nvidia-smi"] == "nvidia-smi: no answer in 5 s"
    assert facts["summary"]["GPUs"] == "nvidia-smi: no answer in 5 s"
    assert calls.read_text() == "x\n"


def test_nvidia_smi_that_fails_is_quoted(tmp_path: Path) -> None:
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    path = tool(tmp_path, "nvidia-smi", f'#!/bin/bash\necho "{said}"\nexit 9\n')
    assert collect(env=bare(path))["gpus"]["nvidia-smi"] == said


def test_xid_lines_of_the_kernel_log_are_shown_and_noted(tmp_path: Path) -> None:
    tool(tmp_path, "nvidia-smi", NVIDIA_SMI)
    xid = "[12.3] NVRM: Xid (PCI:0000:01:00): 79, pid=77, GPU has fallen off the bus."
    path = tool(tmp_path, "dmesg", f'#!/bin/bash\necho "[1.0] boot"\necho "{xid}"\n')
    facts = collect(env=bare(path))
    assert facts["gpus"]["Xid lines"] == xid
    assert "Xid" in facts["summary"]["look at"]


# --- the server --------------------------------------------------------------------------

INFO = {
    "model_path": "a-model",
    "pp_size": 4,
    "api_key": "top-secret-key",
    "cuda_graph_bs": [1, 2, 4],
    "dtype": None,
    "version": "0.5.21",
    "max_total_tokens": 4096,
    "internal_states": [{"pp_size": 4, "memory_usage": {"graph": 0.5}, "api_key": "another-key"}],
}


def test_a_server_on_the_port_tells_its_resolved_arguments() -> None:
    body = json.dumps(INFO).encode()
    for page in ("/server_info", "/get_server_info"):
        with answering({page: (200, body)}) as port:
            facts = collect("--port", port)
        told = {k: v for k, v in facts["server"].items() if not k.startswith("process ")}
        assert told == {
            f"port {port}": f"answers {page}",
            "model_path": "a-model",
            "pp_size": "4",
            "api_key": "<masked>",
            "cuda_graph_bs": "[1, 2, 4]",
            "version": "0.5.21",
            "max_total_tokens": "4096",
            "internal_states.0.memory_usage.graph": "0.5",
            "internal_states.0.api_key": "<masked>",
        }
        assert facts["summary"]["server"] == (
            f"port {port}: version 0.5.21, model_path a-model, pp_size 4"
        )


DEEP = b'{"a":' * 980 + b"1" + b"}" * 980


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "answers 401: it wants its API key"),
        (200, b"<html>", "answers 200 to /server_info, not as an sglang server does"),
        (200, b"[1]", "answers 200 to /server_info, not as an sglang server does"),
        (500, b"", "answers 500 to /server_info, not as an sglang server does"),
        (200, DEEP, "answers 200 to /server_info, not as an sglang server does"),
        (200, b"[" * 100_000, "answers 200 to /server_info, not as an sglang server does"),
    ],
)
def test_other_answers_on_the_port_are_named(status: int, body: bytes, said: str) -> None:
    with answering({"/server_info": (status, body)}) as port:
        assert running_servers.ask(int(port)) == (said, {})


def test_no_server_on_the_port_is_said() -> None:
    assert collect()["server"]["port 1"] == "nothing answers on 127.0.0.1:1"


# --- software ----------------------------------------------------------------------------


def editable(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A checkout of sglang, and an environment in which it is installed editable."""
    checkout = tmp_path / "sglang"
    (checkout / "python").mkdir(parents=True)
    info = tmp_path / "site" / "sglang-0.5.99.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 0.5.99\n")
    url = f"file://{checkout}/python"
    (info / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {"editable": True}}))
    return checkout, bare(PYTHONPATH=str(info.parent))


def test_an_editable_install_shows_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    checkout, env = editable(tmp_path)
    (checkout / "a").write_text("a")
    git = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q", "-b", "main"], ["add", "a"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *command], check=True)
    commit = packages.commit(checkout).split()[0]
    said = f"0.5.99, editable in {checkout}/python at {commit} (refs/heads/main), {commit[:7]}"
    assert collect("--no-redact", env=env)["software"]["sglang"] == said
    (checkout / "a").write_text("b")
    assert collect("--no-redact", env=env)["software"]["sglang"] == f"{said}-dirty"


def test_a_commit_is_read_without_git(tmp_path: Path) -> None:
    checkout, env = editable(tmp_path)
    (checkout / ".git").mkdir()
    (checkout / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (checkout / ".git" / "packed-refs").write_text("# pack\n" + "ab" * 20 + " refs/heads/main\n")
    assert packages.commit(checkout) == f"{'ab' * 20} (refs/heads/main)"
    told = collect("--no-redact", env=env)["software"]["sglang"]
    assert f"at {'ab' * 20} (refs/heads/main), dirty or not is unknown" in told
    (checkout / ".git" / "HEAD").write_text("cd" * 20 + "\n")
    assert packages.commit(checkout) == "cd" * 20


def test_torch_build_is_read_without_importing_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "torch" / "version.py").write_text(
        "from typing import Optional\n__all__ = ['cuda']\n__version__ = '2.9.1+cu128'\n"
        "debug = False\ncuda: Optional[str] = '12.8'\ngit_version = 'abc'\n"
        "hip: Optional[str] = None\n"
    )
    facts = collect(env=bare(PYTHONPATH=str(tmp_path)))
    assert facts["software"]["torch build"] == (
        "version 2.9.1+cu128, debug False, cuda 12.8, git_version abc, hip None"
    )
    assert facts["summary"]["torch"] == "2.9.1+cu128, cuda 12.8"


@pytest.mark.parametrize(("code", "text"), [(22705, "2.27.5"), (2708, "2.7.8"), (21805, "2.18.5")])
def test_nccl_version_codes_are_decoded(code: int, text: str) -> None:
    assert libraries.decode_nccl(code) == text


@pytest.fixture
def fake_nccl(tmp_path: Path) -> Path:
    """A site folder whose pip package says 2.27.5 while its library says 2.28.3."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    site = tmp_path / "site"
    folder = site / "nvidia" / "nccl" / "lib"
    folder.mkdir(parents=True)
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").touch()
    source = tmp_path / "nccl.c"
    source.write_text("int ncclGetVersion(int *v) { *v = 22803; return 0; }\n")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(folder / "libnccl.so.2"), str(source)], check=True
    )
    for name, extra in (
        ("torch", "Requires-Dist: nvidia-nccl-cu12 (==2.27.3) ; platform_system == 'Linux'\n"),
        ("nvidia-nccl-cu12", ""),
    ):
        info = site / f"{name.replace('-', '_')}-2.27.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.27.5\n{extra}"
        )
    return site


def test_nccl_library_is_asked_and_compared_with_its_package(fake_nccl: Path) -> None:
    facts = collect("--no-redact", env=bare(PYTHONPATH=str(fake_nccl)))
    library = fake_nccl / "nvidia/nccl/lib/libnccl.so.2"
    assert facts["software"]["NCCL in the pip package"] == f"2.28.3 {library}"
    assert "NCCL: torch asks for 2.27.3, pip has 2.27.5" in facts["summary"]["look at"]
    assert (
        "NCCL: 2.28.3 in the pip package, pip's metadata say 2.27.5" in facts["summary"]["look at"]
    )


def test_what_the_linker_finds_is_not_what_another_process_has_loaded(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    for name, version in (("linker", 22803), ("server", 22809)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "nccl.c").write_text(
            f"int ncclGetVersion(int *v) {{ *v = {version}; return 0; }}\n"
        )
        command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", "nccl.c"]
        subprocess.run([*command, "-o", "libnccl.so.2"], cwd=folder, check=True)
    code = (
        "import ctypes, os, sys\n"
        "from repro_pp_graphs.environment import libraries\n"
        "(reads, writes), (waits, ends) = os.pipe(), os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(ends)\n"
        "    ctypes.CDLL(sys.argv[1])\n"
        "    os.write(writes, b'.')\n"
        "    os.read(waits, 1)\n"
        "    os._exit(0)\n"
        "os.read(reads, 1)\n"
        "for found in libraries.nccl([str(child)], []):\n"
        "    print(found.where.split()[0], found.version, found.path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "server/libnccl.so.2")],
        env={"LD_LIBRARY_PATH": str(tmp_path / "linker"), "PYTHONPATH": str(ROOT)},
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"in 2.28.9 {tmp_path / 'server/libnccl.so.2'}",
        f"found 2.28.3 {tmp_path / 'linker/libnccl.so.2'}",
    ]


def test_without_a_server_the_packages_library_is_the_one_in_use(fake_nccl: Path) -> None:
    code = (
        "from repro_pp_graphs.environment import interpreter, running_servers\n"
        "running_servers.processes = lambda: iter(())  # whatever else runs on this machine\n"
        "print(*(fact.value for fact in interpreter.nccl() if fact.key == 'NCCL'))"
    )
    env = bare(PYTHONPATH=f"{fake_nccl}:{ROOT}")
    found = ran([sys.executable, "-c", code], env=env, check=True)
    assert found.stdout == "2.28.3 (in the pip package)\n"


def test_nccl_of_a_running_server_comes_first(fake_nccl: Path) -> None:
    library = fake_nccl / "nvidia/nccl/lib/libnccl.so.2"
    loader = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", loader, str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        first = next(libraries.nccl([str(process.pid)], []))
        process.stdin.close()
    assert first == libraries.Library(f"in process {process.pid}", str(library), "2.28.3")


def test_a_driver_too_old_for_torch_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "driver_cuda", lambda: "12.8")
    monkeypatch.setattr(packages, "torch_build", lambda: {"version": "2.9.1", "cuda": "13.0"})
    notes = [fact.value for fact in interpreter.software() if fact.key == "look at"]
    assert notes == ["torch is built for CUDA 13.0, the driver takes 12.8"]


# --- privacy -----------------------------------------------------------------------------


def printed(*options: str, env: dict[str, str]) -> str:
    done = run("--python", sys.executable, "--port", CLOSED_PORT, *options, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_more_than_140_kinds_of_secret_are_planted() -> None:
    assert len(SECRETS) + len(NAMED) > 140


@pytest.mark.parametrize("options", [[], ["--json"], ["--no-redact"]])
def test_no_secret_planted_in_variables_comes_out(options: list[str]) -> None:
    texts = {f"NCCL_PLANT_{n}": text for n, (text, _) in enumerate(SECRETS.values())}
    named = {name: f"word {n} of-passage" for n, name in enumerate(NAMED)}
    output = printed(*options, env=bare(**texts, **named))
    assert output.count("NCCL_PLANT_") == len(SECRETS)
    leaked = [kind for kind, (_, secret) in SECRETS.items() if secret in output]
    assert leaked == []
    assert "of-passage" not in output


def test_no_secret_planted_in_arguments_configuration_or_logs_comes_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    lines = [text for text, _ in SECRETS.values()]
    (home / ".nccl.conf").write_text("\n".join(lines))
    path = tool(tmp_path, "nvidia-smi", NVIDIA_SMI)
    log = tmp_path / "log"
    log.write_text("".join(f"NVRM: Xid: {line}\n" for line in lines))
    tool(tmp_path, "dmesg", f"#!/bin/bash\nexec cat {log}\n")
    arguments = ["--hf-token", "has 'both\" quotes xyzzy", *lines, "--api-key", "plugh and more"]
    with running(*arguments) as pid:
        output = printed("--no-redact", env=bare(path, HOME=str(home)))
    assert f"process {pid}" in output
    assert "Xid: run <masked>" not in output.split("## GPUs")[0]
    assert [kind for kind, (_, secret) in SECRETS.items() if secret in output] == []
    assert "xyzzy" not in output
    assert "plugh" not in output


# variables, none of which changes how another is shown
SECRET = {"MY_SERVICE_PASSWORD": "only-known-here", "NCCL_NOTE": "see only-known-here now"}
HARMLESS = {
    "SGLANG_MAX_TOKENS": "4096",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "NCCL_ARGS": "--tokenizer-path org/Model-7B-Instruct --max-total-tokens 1024 --skip",
    "NCCL_SOCKET_IFNAME": "eth0,ib0",
    "TORCH_COMMIT": "cf30153c4c131c8164ee7798e5022d810682e2cb",
    "SGLANG_URL": "https://host:8000/path?x=1",
}
LOGGED = {
    "NCCL_LINE": "Decode batch, #running-req: 1, #token: 2071, token usage: 0.03",
    "NCCL_SERVER_ARGS": "ServerArgs(api_key=None, num_key_value_heads=8, max_total_tokens=65536,"
    " eplb_token_threshold=0.48, worker_id='', skip_tokenizer_init=False)",
    "NCCL_TRACE": "File sglang/srt/utils/hf_transformers_utils.py, hf_chat_template_name=None,",
    "NCCL_CLASS": "DeepseekV3ForCausalLMNextN Qwen3MoeForConditionalGeneration",
}
# as it is, and as it is shown
PATHS_AND_USERS = {
    "NCCL_TOPO_FILE": ("/data/people/alice/topo.xml", "~/topo.xml"),
    "NCCL_GRAPH_FILE": ("/home/bob/graph.xml", "/home/<user>/graph.xml"),
    "NCCL_COMMENT": ("for alice, not malice", "for <user>, not malice"),
}
ADDRESSES = {
    "NCCL_MAIL": (
        "from carol@corp.example.com, git@github.com:x/y.git",
        "from <email>, git@github.com:x/y.git",
    ),
    "NCCL_NODES": (
        "10.0.0.5:20000 8.8.8.8:20000 127.0.0.1:30000 http://9.9.9.9/x",
        "10.0.0.5:20000 <address>:20000 127.0.0.1:30000 http://<address>/x",
    ),
    "NCCL_VERSIONS": ("cudnn 9.19.0.56, driver 580.159.04",) * 2,
    "NCCL_SEEN": ("on gpu-node-17 now", "on <host> now"),
    "NCCL_LOG": (
        "worker-3.pool:77:99 [0] NCCL INFO worker-3.pool is here",
        "<host 2>:77:99 [0] NCCL INFO <host 2> is here",
    ),
}


Variables = tuple[dict[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def variables() -> Variables:
    """All of them in one environment: what is printed of it, and with --no-redact."""
    people = {"HOME": "/data/people/alice", "USER": "alice", "HOSTNAME": "gpu-node-17"}
    texts = {name: text for name, (text, _) in (PATHS_AND_USERS | ADDRESSES).items()}
    env = bare(EDITOR="vi", **people, **texts, **SECRET, **HARMLESS, **LOGGED)
    return collect(env=env)["environment"], collect("--no-redact", env=env)["environment"]


def test_a_secret_named_in_one_place_is_masked_where_it_has_no_name(variables: Variables) -> None:
    for found in variables:
        assert found["NCCL_NOTE"] == "see <masked> now"


def test_harmless_neighbours_of_secrets_stay_readable(variables: Variables) -> None:
    hidden, _ = variables
    assert {name: hidden[name] for name in HARMLESS} == HARMLESS


@pytest.mark.parametrize("told", [PATHS_AND_USERS, ADDRESSES], ids=["people", "addresses"])
def test_people_hosts_and_public_addresses_are_shown_only_on_request(
    variables: Variables, told: dict[str, tuple[str, str]]
) -> None:
    hidden, shown = variables
    assert {name: (shown[name], hidden[name]) for name in told} == told


def test_what_sglang_logs_of_tokens_stays_readable(variables: Variables) -> None:
    hidden, _ = variables
    assert {name: hidden[name] for name in LOGGED} == LOGGED


def test_variables_of_other_programs_are_not_printed(variables: Variables) -> None:
    assert all("EDITOR" not in found for found in variables)


def test_it_says_that_only_variables_of_known_names_are_shown():
    text = facts.as_text({"environment": {"NCCL_DEBUG": "INFO"}, "server": {"port": "none"}})
    heading, remark, block = text.split("\n")[:3]
    assert (heading, block) == ("## Environment variables", "```text")
    assert remark.startswith("Only variables of known names are here")
    assert text.count("Only variables") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("9223372036854771712", "none"),
        ("9223372036854775807", "none"),
        ("-1", "none"),
        ("8589934592", "8589934592"),
        ("max 100000", "max 100000"),
        ("0-3", "0-3"),
    ],
)
def test_a_limit_of_a_cgroup_that_is_none_is_called_so(text, shown):
    assert system._bound(text) == shown

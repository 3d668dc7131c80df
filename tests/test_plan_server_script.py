"""The script that starts a server: what it says is what the server gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import made_up_run
import pytest
from programs import ran

from repro_pp_graphs.run.plan.server_script import command_script
from repro_pp_graphs.run_record import Launch

# prints what it was given
FAKE = f"""#!{sys.executable}
import json, os, sys
print(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ)}}))
"""
AWKWARD = [
    *["-m", "sglang.launch_server", "--model-path", "/my models/it's 70B"],
    *["--json-model-override-args", '{"num_hidden_layers": 4}', "--seed", "-1"],
    *["--chat-template", '$HOME `id` \\n "x" # y', "--empty", "", "--lines", "a\nb", "--last"],
    *["--glob", "*", "--words", "1", "2", "--词", "词"],
]


def launch_of(python: Path, env: dict[str, str], args: list[str]) -> Launch:
    argv = [str(python), *args]
    return made_up_run.launch(python=str(python), args=args, argv=argv, env=env, port=30000)


@pytest.fixture
def python(tmp_path) -> Path:
    folder = tmp_path / "a venv's" / "bin"
    folder.mkdir(parents=True)
    path = folder / "python"
    path.write_text(FAKE, encoding="utf-8")
    path.chmod(0o755)
    return path


def run(script: str, folder: Path, env: dict[str, str] | None = None) -> dict:
    path = folder / "A server's command.sh"
    path.write_text(script, encoding="utf-8")
    clean = {"PATH": os.environ["PATH"], **(env or {})}
    done = ran(["bash", str(path)], env=clean, check=True)
    return json.loads(done.stdout)


def test_every_argument_and_variable_arrives_intact(python, tmp_path):
    env = {"NCCL_DEBUG": "INFO", "SPACED": "two words", "ODD": "$HOME 'q' \"d\"\nnext", "EMPTY": ""}
    got = run(command_script(launch_of(python, env, AWKWARD), "server", tmp_path, None), tmp_path)
    assert got["argv"] == AWKWARD
    assert {name: got["env"].get(name) for name in env} == env


def test_without_shims_the_python_path_is_the_users(python, tmp_path):
    script = command_script(launch_of(python, {}, []), "server", tmp_path, None)
    assert run(script, tmp_path, {"PYTHONPATH": "/mine"})["env"]["PYTHONPATH"] == "/mine"


@pytest.mark.parametrize(("before", "after"), [(None, ""), ("/mine:/too", ":/mine:/too")])
def test_with_shims_the_harness_comes_first_on_the_python_path(python, tmp_path, before, after):
    root = tmp_path / "the harness's"
    script = command_script(launch_of(python, {"REPRO_SHIMS": "cpu"}, []), "server", root, None)
    env = {"PYTHONPATH": before} if before else {}
    assert run(script, tmp_path, env)["env"]["PYTHONPATH"] == f"{root}{after}"


@pytest.mark.parametrize("profile", [True, False])
def test_messages_are_numbered_for_a_profile_only(tmp_path, profile):
    launch = launch_of(Path("python3"), {"REPRO_SHIMS": "pp_clock"}, [])
    script = command_script(launch, "server", tmp_path, None, profile)
    said = [line for line in script.splitlines() if "REPRO_PP_CLOCK_NUMBERS" in line]
    assert len(said) == (0 if profile else 1)
    assert all("NUMBERS=${REPRO_PP_CLOCK_NUMBERS:-0}" in line for line in said)


def test_the_server_replaces_the_shell(python, tmp_path):
    # else a signal to the recorded process would leave the server behind
    python.write_text(f"#!{sys.executable}\nimport os\nprint(os.getpid())\n", encoding="utf-8")
    path = tmp_path / "c.sh"
    path.write_text(
        command_script(launch_of(python, {}, []), "server", tmp_path, None), encoding="utf-8"
    )
    with subprocess.Popen(["bash", str(path)], stdout=subprocess.PIPE, text=True) as started:
        told, _ = started.communicate(timeout=600)
    assert int(told) == started.pid


def test_under_nsys_the_whole_server_command_follows_nsyss_options(python, tmp_path):
    (tmp_path / "bin").mkdir()
    nsys = tmp_path / "bin" / "nsys"
    nsys.write_text(FAKE, encoding="utf-8")
    nsys.chmod(0o755)
    output = tmp_path / "trace of" / "A"
    script = command_script(launch_of(python, {}, AWKWARD), "server", tmp_path, output)
    path = f"{nsys.parent}:{os.environ['PATH']}"
    argv = run(script, tmp_path, {"PATH": path})["argv"]
    at = argv.index(str(python))
    assert argv[0] == "profile" and f"--output={output}" in argv[:at]
    assert argv[at + 1 :] == AWKWARD


def test_the_script_is_readable_one_argument_a_line(python, tmp_path):
    args = ["-m", "sglang.launch_server", "--pp-size", "4", "--port", "1"]
    script = command_script(launch_of(Path("python3"), {}, args), "server", tmp_path, None)
    assert script.splitlines()[-3:] == [
        "exec python3 -m sglang.launch_server \\",
        "  --pp-size 4 \\",
        '  --port 1 "$@"',
    ]

"""python -m repro_pp_graphs: its overview, its commands' helps, and what it does not know."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from repro_pp_graphs.__main__ import BROKE_OFF, COMMANDS, STEPS, in_turn, main

HELPED = ["probe", "analyze", "merge", "open"]


def said(capsys, *argv: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command."""
    try:
        status = main(list(argv))
    except SystemExit as ended:
        status = int(ended.code or 0)
    shown = capsys.readouterr()
    assert [line for line in (shown.out + shown.err).splitlines() if len(line) > 80] == []
    return status, shown.out, shown.err


def test_the_overview_is_help_when_asked_for_and_an_error_when_not(capsys):
    _, asked, _ = said(capsys, "--help")
    assert said(capsys, "-h") == (0, asked, "") and said(capsys) == (2, "", asked)
    words = {line.split()[0] for line in asked.splitlines() if line.startswith("  ")}
    assert words == {*COMMANDS, *STEPS, "python"} and "examples:" in asked


def test_an_unknown_command_is_answered_with_those_there_are(capsys):
    status, out, err = said(capsys, "prob")
    assert (status, out) == (2, "") and err.startswith("repro_pp_graphs: no command 'prob'")
    assert all(name in err for name in COMMANDS)
    assert not [name for name in STEPS if f" {name}," in err]  # run_repro.sh calls those


@pytest.mark.parametrize("command", HELPED)
def test_each_help_fits_80_columns_and_has_examples(capsys, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = said(capsys, command, "--help")
    assert (status, err) == (0, "") and f"  python -m repro_pp_graphs {command} " in out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["analyze"], "analyze: the following arguments are required: PATH (see --help)\n"),
        (["merge", "x"], "merge: the following arguments are required: -o/--output (see"),
        (["merge", "-o"], "merge: -o/--output: expected one argument (see --help)\n"),
        (["analyze", "no_such"], "analyze: no such file or folder: no_such\n"),
        (["analyze", "x", "--json", "-"], "analyze: --json: - is no file, standard output has"),
        (["merge", "x", "-o", "-"], "merge: -o/--output: - is no file, standard output has"),
        (["probe", "--json", "-"], "probe: --json: - is no file, standard output has the text"),
        (["probe", "--trace", "-"], "probe: --trace: - is no folder: name one"),
        (["report", "x", "--out", "-"], "report: --out: - is no folder: name one"),
        (["probe", "--rank", "2"], "probe: no option '--rank' (see --help)\n"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(capsys, argv, told):
    status, out, err = said(capsys, *argv)
    assert (status, out) == (2, "") and err.startswith(told)


def test_a_missing_module_is_named_with_what_to_run(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "repro_pp_graphs.traces.commands.analyze", None)
    monkeypatch.setattr(os, "execv", lambda *_: None)
    assert main(["analyze", "x"]) == 2
    assert "-m pip install" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("command", "missing", "install"),
    [
        ("report", "msgspec", "msgspec numpy scipy"),
        ("compare", "numpy", "msgspec numpy scipy"),
        ("probe", "numpy", "numpy"),
        ("probe", "torch", "torch"),
    ],
)
def test_all_that_a_command_needs_is_named_at_once(capsys, monkeypatch, command, missing, install):
    def lacks(*_):
        raise ModuleNotFoundError(name=missing)

    monkeypatch.setattr(importlib, "import_module", lacks)
    monkeypatch.setattr(os, "execv", lambda *_: None)
    assert main([command, "x"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(f"{command}: no module '{missing}': run it with the Python that has")
    assert told.endswith(f" -m pip install {install}")


def fails(_: list[str]) -> int:
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("first", "status", "ran"),
    [
        (lambda _: 0, 7, [["a"], ["b", "then"]]),
        (lambda _: 1, BROKE_OFF, [["a"]]),
        (fails, BROKE_OFF, [["a"]]),
    ],
)
def test_a_step_runs_after_another_in_one_process_unless_that_fails(
    monkeypatch, capsys, first, status, ran
):
    seen = []

    def step(name, then):
        def run(argv):
            seen.append(argv)
            return then(argv)

        monkeypatch.setitem(STEPS, name, (name, "made up"))
        monkeypatch.setitem(sys.modules, f"repro_pp_graphs.{name}", SimpleNamespace(main=run))

    step("first", first)
    step("second", lambda _: 7)
    assert in_turn(["first", "a", "--then", "second", "b", "then"]) == status
    assert seen == ran
    assert ("out of order" in capsys.readouterr().err) is (first is fails)


def test_only_steps_run_in_turn(capsys):
    with pytest.raises(SystemExit) as ended:
        in_turn(["analyze", "x", "--then", "finish"])
    assert ended.value.code == 2 and "analyze: no option '--then'" in capsys.readouterr().err


def test_a_run_without_traces_loads_no_numpy():
    """Most of what a step costs is what it imports: numpy alone is a third of it."""
    names = ["begin", "wait-ready", "measure", "profile", "finish", "summary"]
    loads = "; ".join(f"import repro_pp_graphs.{STEPS[name][0]}" for name in names)
    code = f"{loads}; import sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

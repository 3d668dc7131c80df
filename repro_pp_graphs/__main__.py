"""python -m repro_pp_graphs COMMAND ...: the commands, one module each."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from pathlib import Path

from repro_pp_graphs.files import BadFile, NotThereError, is_full
from repro_pp_graphs.terminal import complain, guard_streams

# command -> (module with `main(argv) -> exit status`, one line for the overview)
COMMANDS = {
    "probe": ("probe.probe_command", "the mechanism of #10865, without sglang"),
    "analyze": (
        "traces.commands.analyze",
        "where a decode step's time goes, from the ranks' traces",
    ),
    "merge": ("traces.commands.merge", "all ranks, or two cases, in one trace for ui.perfetto.dev"),
    "report": ("report.report_command", "report.md and report.html of a run, or of traces"),
    "compare": ("report.compare_command", "two runs side by side"),
    "open": ("traces.commands.open", "show a trace in ui.perfetto.dev"),
}
STEPS = {  # of run_repro.sh
    "gpus": ("server.machine.gpus", "does a run here need an environment with CUDA"),
    "plan": ("run.plan_step", "what will run, checked"),
    "nodes": ("run.nodes_step", "ask the nodes of a Slurm allocation, compare them"),
    "node-facts": ("server.nodes.node_facts", "what one node is and sees"),
    "node-files": ("server.nodes.node_files", "files of a node that does not share --out"),
    "begin": ("run.begin_step", "clear the way of a launch"),
    "wait-ready": ("run.wait_ready_step", "wait until the server answers"),
    "measure": ("run.measure_step", "the pass whose numbers are reported"),
    "set-load": ("run.set_load_step", "tell the server of a load that is to be profiled"),
    "profile": ("run.profile_step", "collect every rank's trace"),
    "explain": ("run.explain_step", "merge and analyse a launch's traces"),
    "finish": ("run.finish_step", "port and GPUs free again? ran as claimed? how it ended"),
    "summary": ("report.summary_step", "rewrite summary.json, print the table"),
}
EXAMPLES = """\
examples:
  python -m repro_pp_graphs probe --ranks 2
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs
  python -m repro_pp_graphs open trace/A_vs_B_chrome_trace.json.gz"""

CLOSED = "stdout is closed: send it to a file, or to /dev/null"
TRIED = "REPRO_ENVIRONMENTS_TRIED"  # in the environment: prefixes of Pythons that lack a module
# what reads traces and compares launches; sglang's environment has them
READERS = ("msgspec", "numpy", "scipy")
THEN, BROKE_OFF = "--then", 3  # between steps of one process; the exit status where not all ran


def overview() -> str:
    def rows(commands: dict[str, tuple[str, str]]) -> list[str]:
        return [f"  {name:<11} {text}" for name, (_, text) in commands.items()]

    head = "usage: python -m repro_pp_graphs COMMAND [options]   (COMMAND --help for each)"
    steps = ["steps of run_repro.sh, which calls them itself:", *rows(STEPS)]
    return "\n".join([head, "", *rows(COMMANDS), "", *steps, "", EXAMPLES])


def main(argv: list[str]) -> int:
    """Run one command; returns its exit status, 2 for an unknown one or none."""
    if not argv:
        print(overview(), file=sys.stderr)
        return 2
    if argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    known = COMMANDS | STEPS
    gc.set_threshold(50_000, 20, 20)  # what is imported, and read, lives to the end
    if argv[0] not in known:
        complain("repro_pp_graphs", f"no command '{argv[0]}': one of {', '.join(COMMANDS)}")
        return 2
    try:
        return _run(known[argv[0]][0], argv)
    except ModuleNotFoundError as error:
        return _in_made_environment(argv, str(error.name))


def _run(module: str, argv: list[str]) -> int:
    """Run a command's module; a torn file of the run, a file that cannot be read or written, or an
    output that takes no more becomes one line."""
    try:
        status = int(importlib.import_module(f"repro_pp_graphs.{module}").main(argv[1:]))
        sys.stdout.flush()  # here, where a full disk can still become a line
    except BadFile as error:
        complain(argv[0], f"{error}: run again, without --resume what is there is moved aside")
        return 1
    except NotThereError as error:
        complain(argv[0], str(error))
        return 2
    except OSError as error:
        return _complain_of(error, argv[0])
    return status


def _complain_of(error: OSError, command: str) -> int:
    """One line on a file, or an output, that cannot be used; the exit status. Raises it again where
    it names neither."""
    full, place = is_full(error), error.filename
    if not full and place is None:
        raise error
    if place is None:
        _silence_stdout()
    remedy = "free some space, then try again" if full else "name one that can be used"
    complain(command, f"{place or 'where its output goes'}: {error.strerror}; {remedy}")
    return 1 if full and place else 2


def _silence_stdout() -> None:
    """What could not be written is not tried again when Python ends."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_made_environment(argv: list[str], missing: str) -> int:
    """Run the command in an environment that run_repro.sh made, each tried once; 2 where none
    has the module."""
    root = Path(__file__).resolve().parents[1]
    tried = [*os.environ.get(TRIED, "").split("\n"), sys.prefix]
    for python in sorted(root.glob(".venv-*/bin/python")):
        if python.exists() and str(python.parents[1]) not in tried:
            os.environ[TRIED] = "\n".join(tried)
            os.environ["PYTHONPATH"] = os.pathsep.join(
                [str(root), os.environ.get("PYTHONPATH", "")]
            )
            os.execv(python, [str(python), "-m", "repro_pp_graphs", *argv])
    needs = READERS if missing in READERS and argv[0] != "probe" else (missing,)
    install = f"{sys.executable} -m pip install {' '.join(needs)}"
    complain(
        argv[0], f"no module '{missing}': run it with the Python that has sglang, or {install}"
    )
    return 2


def _status_of(argv: list[str]) -> int:
    """Run one command; its exit status, whatever becomes of what it prints."""
    try:
        status = main(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        _silence_stdout()
        status = 0
    except OSError as error:
        status = _complain_of(error, "repro_pp_graphs")
    except KeyboardInterrupt:
        status = 130
    return status


def in_turn(words: list[str]) -> int:
    """Run `STEP ... --then STEP ...`, which costs one start of Python: the exit status of the last
    one, or BROKE_OFF where one before it failed."""
    while words and words[0] in STEPS and THEN in words:
        at = words.index(THEN)
        first, words = words[:at], words[at + 1 :]
        try:
            failed = _status_of(first)
        except Exception:  # as Python shows it, where nothing follows
            sys.excepthook(*sys.exc_info())
            failed = 1
        if failed:
            return BROKE_OFF
    return _status_of(words)


if __name__ == "__main__":
    has_stdout = sys.stdout is not None
    guard_streams()
    try:
        if not has_stdout:
            complain("repro_pp_graphs", CLOSED)
            sys.exit(2)
        sys.exit(in_turn(sys.argv[1:]))
    finally:
        gc.freeze()  # else Python looks for cycles in all of it before it ends

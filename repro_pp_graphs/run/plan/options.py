"""What run_repro.sh was asked for, as one record. Standard library only: options are read before
there is an environment."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from repro_pp_graphs.client.terminal import visible
from repro_pp_graphs.run.plan import hints, sweep
from repro_pp_graphs.run.plan.contradictions import contradiction
from repro_pp_graphs.server.machine import pinning
from repro_pp_graphs.terminal import folder, say, wrapped

CASES = "graphs_on,graphs_off"
ENGINES = ("sglang", "probe")
# --sends: which cases are run, where --cases names none
SENDS = {
    "as_released": CASES,
    "blocking": "sync_send,sync_send_no_graphs",
    "both": f"{CASES},sync_send,sync_send_no_graphs",
}
# more than any machine or model has: what is beyond is a slip of the hand, and would take hours to
# plan, or all memory
HIGHEST = {
    "--pp-size": 1024,
    "--tp-size": 1024,
    "--layers": 10_000,
    "--batch": 65_536,
    "--max-new-tokens": 1_000_000,
    "--profile-steps": 100_000,
    "--ranks-per-gpu": 64,
    "--port": 65_535,
    "--nodes": 1024,
}
MOST_ROUNDS = 1000
MOST_GPUS, MOST_GPU_GB = 1024, 2048  # of --gpus
MOST_SECONDS = 7 * 24 * 3600
LONGEST_SHOWN = 40  # characters of a wrong value
LONGEST_WORD = 4096  # characters: paths are no longer


class Options(NamedTuple):
    """The options of run_repro.sh; None where the mode or an argument file decides."""

    root: Path  # the harness's folder: server_args_*.txt, client_benchmark.py
    out: Path  # results go to out/logs and out/trace
    python: str  # interpreter that runs the servers, unless a case names another
    cases: list[str]
    rounds: list[int] | None  # launches a case, look by look: [4, 4] for 4+4
    aa: bool  # one case under two labels
    pp_size: int | None
    tp_size: int | None
    model: str | None
    dummy_weights: bool
    layers: int | None
    batch: int | None
    max_new_tokens: int | None
    port: int | None
    profile: bool
    profile_steps: int | None
    with_stack: bool
    nsys: bool
    one_gpu: bool
    cpu: bool
    start_timeout_s: int
    resume: bool
    dry_run: bool
    gpus: int | None  # so many are assumed on each node, in a dry run
    engine: str
    owner: int  # the process that holds --out while the run lasts; 0 for nobody
    command: str  # as the user calls run_repro.sh
    given: list[str]  # the user's own words
    sweep: dict[str, list[str]]  # values by axis (run/plan/sweep.py)
    # of a sweep, the names of the loads to profile beside the main one; [EVERY]: all
    profile_loads: list[str]
    pp_clock: bool = True  # time the waits of every turn (docs/pp_clock.md)
    attach: str = ""  # the URL of a server that is already running; empty: servers are started
    trace_dir: Path | None = None  # of --attach: where that server shall write its traces
    yes: bool = False  # send the load to it without asking
    not_made: str = ""  # the release whose environment a real run makes first, and has not yet
    ahead: bool = False  # look only for what would stop the run, before it is made
    found_by: str = ""  # what named the interpreter: --python, $PYTHON; empty: it was made here
    ranks_per_gpu: int | None = None  # so many share each
    mps: bool = False  # side by side, under an MPS daemon of the run's own
    sockets: bool = False  # in place of NVLink
    pin_cpus: str = ""  # auto, or cores a rank as 0-3:4-7; empty: off
    sends: str = "as_released"  # how PP messages go: one of SENDS
    terminal: int = 0  # a file descriptor to read the answer from; 0: there is no terminal
    nodes: int | None = None  # of the Slurm allocation, those to use; None: all
    allocated: int = 1  # nodes that it has; 1 outside one
    srun: str = ""  # more options for srun
    gpu_gb: int | None = None  # of the GPUs that are assumed, each; None: as usual
    # in place of the argument files', of a plan that is tried
    backend: str = ""  # of attention
    fraction: float | None = None  # of a GPU's memory, for weights and KV cache


class _Parser(argparse.ArgumentParser):
    """Complains in one line, in the words of run_repro.sh."""

    def error(self, message: str) -> NoReturn:
        name, _, fault = message.removeprefix("argument ").partition(": ")
        text = f"{name} {fault}" if message.startswith("argument ") else message
        if fault.startswith(("expected one argument", "expected at least one")):
            text = f"{name} needs a value (see --help)"
        complain(text)
        sys.exit(2)


def complain(text: str) -> None:
    """Say what stops the run."""
    say("\n".join(wrapped(text, "run_repro.sh: ")))


def _whole(high: int) -> Callable[[str], int]:
    """An argparse type: a whole number in ASCII digits, from 1 to `high`."""

    def parse(text: str) -> int:
        shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
        if not re.fullmatch("[1-9][0-9]*", text):
            raise argparse.ArgumentTypeError(f"{shown}: not a whole number of 1 or more")
        if len(text) > len(str(high)) or int(text) > high:
            raise argparse.ArgumentTypeError(f"{shown}: the highest is {high}")
        return int(text)

    return parse


def _rounds(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9][0-9]*(\+[1-9][0-9]*)*", text):
        raise argparse.ArgumentTypeError(
            f"{text[:LONGEST_SHOWN]}: not a whole number of 1 or more (4+4: 4, a look at the "
            "results, 4 more)"
        )
    looks = [_whole(MOST_ROUNDS)(part) for part in text.split("+")]
    if sum(looks) > MOST_ROUNDS:
        raise argparse.ArgumentTypeError(
            f"{text[:LONGEST_SHOWN]}: the highest is {MOST_ROUNDS} in all"
        )
    return looks


def _gpus(text: str) -> tuple[int, int | None]:
    """How many GPUs, and GB of each where they are given: 8, 8x141."""
    count, times, each = text.partition("x")
    if times and not (re.fullmatch("[0-9]+", count) and re.fullmatch("[0-9]+", each)):
        raise argparse.ArgumentTypeError(
            f"{text[:LONGEST_SHOWN]}: give how many, or how many of how many GB each: 8, or 8x141"
        )
    try:
        return _whole(MOST_GPUS)(count), _whole(MOST_GPU_GB)(each) if times else None
    except argparse.ArgumentTypeError as error:
        where = f"{text[:LONGEST_SHOWN]}: " if times else ""
        raise argparse.ArgumentTypeError(f"{where}{error}") from None


def _allocated() -> int:
    """The nodes of the Slurm allocation that this runs in; 1 outside one."""
    count = os.environ.get("SLURM_JOB_NUM_NODES", "")
    return int(count) if os.environ.get("SLURM_JOB_ID") and count.isdigit() else 1


def _engine(text: str) -> str:
    if text not in ENGINES:
        raise argparse.ArgumentTypeError(f"{text}: sglang, or probe (the PP ring without sglang)")
    return text


def _sends(text: str) -> str:
    if text not in SENDS:
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_SHOWN]}: one of {', '.join(SENDS)}")
    return text


def _pin_cpus(text: str) -> str:
    if text in (pinning.OFF, pinning.AUTO):
        return "" if text == pinning.OFF else text
    try:
        pinning.parse(text)
    except pinning.PinError as error:
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_SHOWN]}: {error}") from None
    return text


def _parser() -> _Parser:
    parser = _Parser(prog="run_repro.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--python", default="")
    parser.add_argument("--release")  # run_repro.sh has made it --python
    parser.add_argument("--cases")
    parser.add_argument("--sends", type=_sends, default="as_released")
    parser.add_argument("--pin-cpus", type=_pin_cpus, default=pinning.OFF)
    parser.add_argument("--rounds", type=_rounds)
    for name, high in HIGHEST.items():
        parser.add_argument(name, type=_whole(high))
    parser.add_argument("--gpus", type=_gpus, default=(None, None))
    parser.add_argument("--model")
    parser.add_argument("--engine", type=_engine, default=ENGINES[0])
    seconds = _whole(MOST_SECONDS)
    parser.add_argument("--start-timeout", type=seconds, default=1800, dest="start_timeout_s")
    parser.add_argument("--no-profile", dest="profile", action="store_false")
    parser.add_argument("--no-pp-clock", dest="pp_clock", action="store_false")
    for name in ("--dummy-weights", "--with-stack", "--nsys", "--one-gpu", "--cpu", "--aa"):
        parser.add_argument(name, action="store_true")
    for name in ("--resume", "--dry-run", "--yes", "--mps", "--sockets", "--ahead"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--sweep", nargs="+", action="extend", default=[], metavar="AXIS=V,V")
    parser.add_argument("--profile-loads", nargs="+", action="extend", default=[], metavar="NAME")
    parser.add_argument("--attach", default="", metavar="URL")
    parser.add_argument("--trace-dir", type=folder)
    parser.add_argument("--not-made", default="")
    parser.add_argument("--found-by", default="")
    parser.add_argument("--srun", default="")
    parser.add_argument("--allocated", type=int, default=_allocated())
    parser.add_argument("--terminal", type=int, default=0)
    parser.add_argument("--owner", type=int, default=0)
    parser.add_argument("--command", default="run_repro.sh")
    return parser


def parse(argv: list[str]) -> Options:
    """Read `OWN... [-- USER...]`: what run_repro.sh found out itself, and its user's words, which
    that has precedence over. Exits 2 on a bad option, with a line that says why."""
    for word in argv:
        if fault := _unusable(word):
            complain(f"'{visible(word)[:LONGEST_SHOWN]}': {fault}: name it otherwise")
            sys.exit(2)
    at = argv.index("--") if "--" in argv else len(argv)
    own, users = argv[:at], argv[at + 1 :]
    parser = _parser()
    values, unknown = parser.parse_known_args([*users, *own])
    if unknown:
        name = unknown[0].partition("=")[0][:LONGEST_SHOWN]
        ours = [word for action in parser._actions for word in action.option_strings]
        meant = hints.hint(unknown, bool(values.attach), ours)
        complain(f"no option '{name}' (see --help); {meant}")
        sys.exit(2)
    values.gpus, values.gpu_gb = values.gpus
    try:
        values.sweep = sweep.parse(values.sweep)
        words = " ".join(values.profile_loads).replace(",", " ")
        values.profile_loads = list(dict.fromkeys(words.split()))
        fault = contradiction(values, users, SENDS[values.sends])
    except sweep.SweepError as error:
        fault = f"--sweep {error}"
    if fault:
        complain(fault)
        sys.exit(2)
    given = vars(values)
    named = given.pop("cases")
    given.pop("release")
    asked = SENDS[given["sends"]] if named is None else named
    cases = [name for name in asked.split(",") if name]
    if given["aa"] and named is None:
        cases = cases[:1]
    out, root = (given.pop(name) or Path() for name in ("out", "root"))
    return Options(cases=cases, out=out.absolute(), root=root.absolute(), given=users, **given)


def _unusable(word: str) -> str:
    """Why a word of the command line cannot be one; empty where it can."""
    if any("\ud800" <= character <= "\udfff" for character in word):
        return "it holds bytes that are no UTF-8"
    if word != visible(word) or set(word) & set("\n\t"):
        return "it holds a control character"
    return "it is too long" if len(word) > LONGEST_WORD else ""

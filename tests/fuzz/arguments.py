"""Argument files, and the plan made of them: what it says, the scripts, what the shell reads."""

from __future__ import annotations

import atexit
import json
import shlex
import shutil
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

from plan_harness import BASE, FLAGS, OFF, ON, gpus

from fuzz.choices import Choices
from fuzz.oracle import LONGEST_SAID, check, plain, strict_json
from repro_pp_graphs.run import dry_run, make_plan, overview, plan_step
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.server_script import script_of
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.case import argfile
from repro_pp_graphs.server.case.argfile import ArgFileError
from repro_pp_graphs.server.release.installed import Release
from repro_pp_graphs.terminal import wrapped

ROOT = Path(__file__).resolve().parents[2]
CUT = b"\n%%\n"  # between base, first case and second
ARGUMENTS = (
    (),
    ("--dummy-weights",),
    ("--cpu",),
    ("--pp-size", "2"),
    ("--cpu", "--layers", "4", "--port", "31000"),
    ("--one-gpu", "--dummy-weights"),
    ("--dry-run",),
    ("--aa", "--rounds", "2"),
)
RELEASES = ("0.5.2", "0.5.21", "0.5.10", "", "0.5.23")
NAMES = ("base", "a", "b")


@cache
def folder() -> Path:
    """Where the files are written, in memory where there is such a place."""
    made = tempfile.TemporaryDirectory(prefix="fuzz-arguments-")
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def _options(which: int) -> Options:
    """Options cannot change what a plan's other inputs do not: parsed once."""
    place = folder()
    own = ("--root", str(place), "--out", str(place / "out"), "--python", "/usr/bin/python3")
    cases = "a" if "--aa" in ARGUMENTS[which] else "a,b"
    return run_options.parse([*own, "--cases", cases, *ARGUMENTS[which]])


def _plan(which: int, release: str) -> Plan | str:
    options = _options(which)
    found = Release(release, FLAGS, folder() / "sglang") if release else None
    seen = [] if options.cpu else gpus(4)
    try:
        return make_plan.make(options, seen, None, lambda python, env: found)
    except make_plan.REFUSALS as error:
        return str(error)
    except OSError as error:  # of a path that no system takes: main() says so
        check(error.filename is not None, "a refusal that names no path")
        return error.strerror


def _round_trip(text: str) -> None:
    """What a file means, written as a file, means the same."""
    try:
        args = argfile.parse(text, "x.txt")
    except ArgFileError:
        return
    lines = [shlex.join([flag, *values]) for flag, values in args.flags.items()]
    lines += [f"{name}={shlex.quote(value)}" for name, value in args.env.items()]
    again = argfile.parse("\n".join(lines), "again.txt")
    check((again.flags, again.env) == (args.flags, args.env), "not the same when written again")


def run(data: bytes) -> None:
    """Raises Fault, or whatever the reader or the planner lets out."""
    choices = Choices(data)
    which, release = choices.number(len(ARGUMENTS)), choices.one_of(RELEASES)
    texts = dict(zip(NAMES, [*choices.rest().split(CUT), b"", b""], strict=False))
    for name, text in texts.items():
        (folder() / f"server_args_{name}.txt").write_bytes(text)
        _round_trip(text.decode("utf-8", "replace"))
    plan = _plan(which, release)
    if isinstance(plan, str):
        check(plan.strip(), "refused without a word")
        check(len(plan) <= LONGEST_SAID, f"a refusal of {len(plan)} characters")
        for line in plan.splitlines():
            plain("".join(wrapped(line)), "a refusal")
        check("server_args_" in plan or "--" in plan or "label" in plan, f"names no file: {plan}")
        return
    options = _options(which)
    strict_json(json.dumps(asdict(plan)))
    for line in [*overview.lines(plan, options), *dry_run.lines(plan, options)]:
        plain(line.replace("\n", ""), "the overview")
    for launch in plan.launches:
        script = script_of(launch, plan, options)
        check(shlex.split(script, comments=True), "a script without a command")
        plain(script.replace("\n", "").replace("\t", ""), "a script")
    shell = plan_step.for_the_shell(plan, options, set())
    check(all(shlex.split(line) for line in shell), "what the shell reads cannot be split")
    client_words.profiled(plan)


def seeds() -> list[bytes]:
    """The files of the repository, and those that tests plan with."""
    cut = CUT.decode()
    own = sorted(ROOT.glob("server_args_*.txt"))
    base = (ROOT / "server_args_base.txt").read_text(encoding="utf-8")
    texts = [base + cut + path.read_text(encoding="utf-8") + cut + OFF for path in own]
    texts += [BASE + cut + ON + cut + OFF, f"{BASE}PYTHON=/x\nA='b c'{cut}{ON}RELEASE=0.5.21\n"]
    texts += [
        f'{BASE}--cuda-graph-config {{"decode": {{"backend": "full"}}}}{cut}{ON}{cut}--nnodes 2',
        f"{BASE}{cut}--cuda-graph-bs 1 2 4 8\nREPRO_SHIMS=sync_send{cut}--pp-async-batch-depth 2",
        f"{BASE}{cut}--dp-size 2\n--enable-dp-attention{cut}--attention-backend triton",
    ]
    return [bytes([at % 8, at % 5]) + text.encode() for at, text in enumerate(texts)]


def close() -> None:
    shutil.rmtree(folder())

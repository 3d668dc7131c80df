"""What run_repro.sh was asked for, as one record."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The options of run_repro.sh; None where the mode or an argument file decides."""

    root: Path  # the harness's folder: server_args_*.txt, client_benchmark.py
    out: Path  # results go to out/logs and out/trace
    python: str  # interpreter that runs the servers, unless a case names another
    cases: list[str]
    rounds: int
    pp_size: int | None
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
    resume: bool
    dry_run: bool
    engine: str
    owner: int  # the process that holds --out while the run lasts; 0 for nobody
    pp_clock: bool = True  # time the waits of every turn (docs/pp_clock.md)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _port(text: str) -> int:
    port = _positive(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{port} is above 65535")
    return port


def parse(argv: list[str]) -> Options:
    """Read the options; run_repro.sh passes its own on unchanged. Exits 2 on a bad one."""
    parser = argparse.ArgumentParser(prog="run_repro.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--cases", default="graphs_on,graphs_off")
    parser.add_argument("--rounds", type=_positive, default=1)
    for name in ("--pp-size", "--layers", "--batch", "--max-new-tokens"):
        parser.add_argument(name, type=_positive)
    parser.add_argument("--port", type=_port)
    parser.add_argument("--profile-steps", type=_positive)
    parser.add_argument("--model")
    parser.add_argument("--engine", choices=("sglang", "probe"), default="sglang")
    parser.add_argument("--no-profile", dest="profile", action="store_false")
    parser.add_argument("--no-pp-clock", dest="pp_clock", action="store_false")
    for name in ("--dummy-weights", "--with-stack", "--nsys", "--one-gpu", "--cpu"):
        parser.add_argument(name, action="store_true")
    for name in ("--resume", "--dry-run"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--owner", type=int, default=0)
    given = vars(parser.parse_args(argv))
    cases = [name for name in given.pop("cases").split(",") if name]
    out, root = given.pop("out").absolute(), given.pop("root").absolute()
    return Options(cases=cases, out=out, root=root, **given)

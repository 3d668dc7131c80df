"""What the run that traces belong to measured without the profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from repro_pp_graphs import files, struct_files
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.traces.rank_trace import Case

SHAPE: dict[str, Any] = {"summary": {"mean_tpot_ms": float}}


class _Mean(msgspec.Struct):
    mean: float


class _Turns(msgspec.Struct):
    """Of one mode: means of a turn, ms; `parts` by kind of call."""

    turn: _Mean
    parts: dict[str, float] = {}
    untimed: _Mean | None = None


class _Rank(msgspec.Struct):
    measured: dict[str, _Turns]
    profiled: dict[str, _Turns]


class _Clock(msgspec.Struct):
    """What is asked of a pp_clock file."""

    loop_size: int
    ranks: dict[str, _Rank]


class Unprofiled(NamedTuple):
    """A launch's pass without the profiler, by pp_clock: its decode step, ms, and how many times as
    long as while profiled the hosts' own work takes there, with launches and without them."""

    step_ms: float
    host: float
    host_but_launches: float


def measured_tpot_ms(case: Case) -> float | None:
    """The mean TPOT of the launch whose traces lie in a run's trace/LABEL, from the run's
    logs/LABEL_client.json; None where there is none."""
    try:
        found = files.read_object(_log(case, "client"), SHAPE)
    except (OSError, BadFile):
        return None
    value: float | None = found.get("summary", {}).get("mean_tpot_ms")
    return value


def unprofiled(case: Case) -> Unprofiled | None:
    """What the same launch's logs/LABEL_pp_clock.json says of its pass without the profiler; None
    where there is none, or a rank has no decode turns of both passes."""
    try:
        clock = struct_files.read(_log(case, "pp_clock"), _Clock)
    except (OSError, BadFile):
        return None
    found = [_rank(rank) for rank in clock.ranks.values()]
    known = [each for each in found if each and all(0 < value < float("inf") for value in each)]
    if not known or len(known) < len(found):
        return None
    turns, host, but_launches = zip(*known, strict=True)
    number = len(known)
    return Unprofiled(clock.loop_size * max(turns), sum(host) / number, sum(but_launches) / number)


def _rank(rank: _Rank) -> tuple[float, float, float] | None:
    """A rank's mean decode turn without the profiler, ms, and how many times as long its host's own
    work takes there, with launches and without; None where a pass does not show it."""
    one, other = rank.measured.get("decode"), rank.profiled.get("decode")
    own, profiled = _own(one), _own(other)
    if one is None or own is None or profiled is None or not all(profiled):
        return None
    return one.turn.mean, own[0] / profiled[0], own[1] / profiled[1]


def _own(turns: _Turns | None) -> tuple[float, float] | None:
    """What a host does of its own in a turn, ms, with launches and without; None: not known."""
    if turns is None or turns.untimed is None or not {"launch", "process"} <= turns.parts.keys():
        return None
    python = turns.untimed.mean + turns.parts["process"]
    return python + turns.parts["launch"], python


def _log(case: Case, kind: str) -> Path:
    traces = Path(case.ranks[0].path).resolve().parent
    return traces.parent.parent / "logs" / f"{traces.name}_{kind}.json"

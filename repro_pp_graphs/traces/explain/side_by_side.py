"""Several cases' analyses in one table, a row a case: the figures that each of them begins with."""

from __future__ import annotations

from collections.abc import Sequence

from repro_pp_graphs.traces.analysis_record import Analysis, Spread
from repro_pp_graphs.traces.explain.conclusion import LONG_SHARE
from repro_pp_graphs.traces.explain.token_return_words import sends_held
from repro_pp_graphs.traces.explain.words import (
    CAUSE_TITLES,
    ROW_PHRASES,
    WIDTH,
    column,
    gpu_of,
    ms,
    on_gpu,
    wrapped,
)

# of every case, and of a trace that has GPU kernels
COLUMNS, ON_GPU = ("step", "turn", "send"), ("own graph", "no compute")
COLUMN = 11
NAME = WIDTH - COLUMN * len(COLUMNS + ON_GPU)
LEGEND = (
    "step: a decode step; turn: of the last rank's loop, by its host; send: how long the send of "
    "token ids holds that host"
)
LEGEND_ON_GPU = (
    ", and of it while its own decode graph runs, and while its GPU computes nothing. -: not "
    "known, the case's own lines say why"
)


def lines(found: Sequence[Analysis]) -> list[str]:
    """The cases under one another, at most 80 columns wide."""
    gpu = any(map(on_gpu, found))
    head = "".join(f"{title:>{COLUMN}}" for title in COLUMNS + ON_GPU * gpu)
    rows = [_name(facts.case) + _cells(facts, gpu) for facts in found]
    legend = f"({LEGEND}{LEGEND_ON_GPU * gpu})"
    held = [line for facts in found for line in _held_elsewhere(facts)]
    return [f"{'side by side, means in ms':<{NAME}}{head}", *rows, *wrapped(legend), *held]


def _held_elsewhere(facts: Analysis) -> list[str]:
    """In what the last rank's host waits while its own graph runs, where that is not the send."""
    turn = facts.turns.get(facts.label_of_last())
    if turn is None:
        return []
    waits = {
        name: min(row.under_own_graph or 0.0, sum(row.waits.values()))
        for name, row in turn.rows.items()
    }
    name = max(waits, key=lambda each: waits[each])
    if name in ("token_send", "exchange") or waits[name] < LONG_SHARE * turn.mean:
        return []
    causes = turn.rows[name].waits
    most = CAUSE_TITLES[max(causes, key=lambda each: causes[each])]
    return wrapped(
        f"! {facts.case}: while its own decode graph runs, that host is in {ROW_PHRASES[name]} "
        f"({ms(waits[name])} ms a turn; it waits there, for the most part, {most}), not in the "
        "send."
    )


def _name(case: str) -> str:
    """A case's name in its column, on a line of its own where it is longer."""
    return f"{case:<{NAME}}" if len(case) < NAME else f"{case}\n{'':<{NAME}}"


def _cells(facts: Analysis, gpu: bool) -> str:
    turn, held = facts.turns.get(facts.label_of_last()), sends_held(facts)
    values = [
        facts.decode_step.mean if facts.decode_step else None,
        turn.mean if turn else None,
        held[0].send.mean if held else None,
    ]
    parts: tuple[Spread | None, ...] = (None, None)
    if held:
        shares = gpu_of(facts, facts.label_of_last())
        parts = held[0].overlapped_with_graph, held[0].idle_of_all if shares else held[0].idle
    if gpu:
        values += [part.mean if part and on_gpu(facts) else None for part in parts]
    return "".join(column(value, COLUMN) for value in values)

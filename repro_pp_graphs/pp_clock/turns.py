"""What a rank's turns are made of: durations, calls and waits, by what the turns' batches were."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.clock_record import Mode, Spread, Turns
from repro_pp_graphs.pp_clock.loop import Loop
from repro_pp_graphs.pp_clock.rows import CODES, KINDS, Row
from repro_pp_graphs.pp_clock.window import Window

_TURN, _LAUNCH = CODES["turn"], CODES["launch"]
WAITS = frozenset(CODES[name] for name in rows.WAITS)


def spread(values_ns: Sequence[float]) -> Spread:
    """Of at least one duration (ns)."""
    import numpy as np  # noqa: PLC0415 - a launch that was hardly timed needs none

    from repro_pp_graphs.traces.quantiles import median, quantile  # noqa: PLC0415

    values = np.asarray(values_ns, np.float64) / 1e6
    mean, middle, late = float(np.mean(values)), median(values), quantile(values, 0.99)
    return Spread(
        count=len(values), mean=round(mean, 5), median=round(middle, 5), p99=round(late, 5)
    )


def _own_time(row: Row, others: Iterable[Row]) -> int:
    """How long a call took (ns), without the timed calls inside it."""
    inside = (
        other.end_ns - other.begin_ns
        for other in others
        if other is not row and row.begin_ns <= other.begin_ns and other.end_ns <= row.end_ns
    )
    return row.end_ns - row.begin_ns - sum(inside)


def _parts(loop: Loop, turn: int) -> dict[int, int]:
    """A turn (ns) by kind of call, each without the timed calls inside it; as _TURN the rest."""
    row, calls = loop.turns[turn], loop.calls[turn]
    found: dict[int, int] = defaultdict(int)
    for call in calls:
        found[call.kind] += _own_time(call, calls)
    found[_TURN] = row.end_ns - row.begin_ns - sum(found.values())
    return found


def _calls(loop: Loop, chosen: Iterable[int], mode: Mode) -> dict[str, Spread]:
    """Calls of batches of that mode, by kind."""
    times: dict[int, list[int]] = defaultdict(list)
    for turn in chosen:
        calls = loop.calls[turn]
        for row in calls:
            if loop.mode(loop.batch_turn(row)) == mode:
                took = _own_time(row, calls) if row.kind == _LAUNCH else row.end_ns - row.begin_ns
                times[row.kind].append(took)
    return {KINDS[kind]: spread(times[kind]) for kind in sorted(times)}


def turns_of(loop: Loop, chosen: Sequence[int], mode: Mode) -> Turns | None:
    """The facts of those turns; None for none."""
    in_flight = 0
    if mode == "decode":
        strict, in_flight = loop.decoding(chosen)
    elif mode == "beside_prefill":
        strict = [turn for turn in chosen if loop.is_beside_prefill(turn)]
    else:
        strict = [turn for turn in chosen if loop.mode(turn) == mode]
    if not strict:
        return None
    batches: Mode = "prefill" if mode == "prefill" else "decode"
    waits: list[int] = []
    within: list[int] = []
    outside: dict[int, list[int]] = defaultdict(list)
    for turn in strict:
        rows_of_turn = [row for row in loop.calls[turn] if row.kind in WAITS]
        waits.append(sum(row.end_ns - row.begin_ns for row in rows_of_turn))
        if not loop.own or not loop.known_on_gpu(turn):
            continue
        by_kind: dict[int, int] = defaultdict(int)
        for row in rows_of_turn:
            own = loop.in_own_batch(row.begin_ns, row.end_ns)
            by_kind[row.kind] += row.end_ns - row.begin_ns - own
        within.append(waits[-1] - sum(by_kind.values()))
        outside[0].append(sum(by_kind.values()))
        for kind, took in by_kind.items():
            outside[kind].append(took)
    rows_of_turns = [loop.turns[turn] for turn in strict]
    ran = [loop.own[t].end_ns - loop.own[t].begin_ns for t in strict if t in loop.own]
    everything = outside.pop(0, [])
    parts = [_parts(loop, turn) for turn in strict]
    kinds = sorted({kind for each in parts for kind in each} - {_TURN})
    return Turns(
        turn=spread([row.end_ns - row.begin_ns for row in rows_of_turns]),
        waits=spread(waits),
        calls=_calls(loop, strict if mode == "beside_prefill" else chosen, batches),
        split=len(within),
        waits_in_own_batch=spread(within) if within else None,
        waits_outside=spread(everything) if everything else None,
        outside={KINDS[kind]: spread(outside[kind]) for kind in sorted(outside)},
        own_batch=spread(ran) if ran else None,
        untimed=spread([each[_TURN] for each in parts]),
        parts={
            KINDS[kind]: round(sum(each.get(kind, 0) for each in parts) / len(strict) / 1e6, 5)
            for kind in kinds
        },
        graphs=sum(bool(row.flags & rows.GRAPH) for row in rows_of_turns),
        in_flight=in_flight,
    )


def in_window(loop: Loop, window: Window | None) -> list[int]:
    """The turns that lie in the window, clock on and no profile."""
    if window is None:
        return []
    return [
        turn
        for turn, row in loop.turns.items()
        if window[0] <= row.begin_ns
        and row.end_ns <= window[1]
        and not row.flags & rows.PROFILED
        and loop.clock_on(turn)
    ]


def profiled(loop: Loop, during: Window | None) -> list[int]:
    """The turns that a profile saw whole, clock on: without its begin, for which ranks wait for one
    another, and its end, at which they write. `during`: when that profile was; None: there was
    none."""
    found: list[int] = []
    run: list[int] = []
    for turn, row in loop.turns.items():
        own = during is not None and during[0] <= row.begin_ns < during[1]
        if row.flags & rows.PROFILED and own:
            run.append(turn)
        else:
            found += run[2 * loop.size : -loop.size]
            run = []
    found += run[2 * loop.size : -loop.size]
    return [turn for turn in found if loop.clock_on(turn)]


def decode_batches(loop: Loop, chosen: Iterable[int]) -> dict[str, int]:
    """Turns that decode, whatever is beside them, by the requests of their batch, the fewest
    first."""
    sizes = Counter(loop.turns[t].batch_size for t in chosen if loop.mode(t) == "decode")
    return {str(size): sizes[size] for size in sorted(sizes)}


def by_mode(loop: Loop, chosen: Sequence[int]) -> dict[Mode, Turns]:
    """The facts of those turns by what their batches were; modes without a turn are left out."""
    modes: tuple[Mode, ...] = ("decode", "beside_prefill", "prefill")
    found = {mode: turns_of(loop, chosen, mode) for mode in modes}
    return {mode: turns for mode, turns in found.items() if turns}

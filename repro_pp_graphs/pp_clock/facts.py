"""From the ranks' rows to facts: turns by mode, their calls, their waits. Pure functions.

A row belongs to the turn that it was written in; the batch that a message is of may have been
launched in another. With `loop` micro-batches in flight and `pp` ranks the last rank sends the
tokens of the batch launched loop - pp turns ago, a rank receives those of loop - 1 turns ago, and
one that is not the last sends on those of loop turns ago.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from repro_pp_graphs.pp_clock import absent, on_off, rows
from repro_pp_graphs.pp_clock.clock_record import (
    EDGES,
    ENOUGH_TURNS,
    ClockFacts,
    Mode,
    OnOff,
    Rank,
    Spread,
    Turns,
)
from repro_pp_graphs.pp_clock.device import MISSED
from repro_pp_graphs.pp_clock.hooks import EXCHANGE, REFUSED
from repro_pp_graphs.pp_clock.rows import CODES, KINDS, Row, Rows
from repro_pp_graphs.terminal import visible

Window = tuple[int, int]  # CLOCK_MONOTONIC, ns
ALWAYS: Window = (0, 1 << 62)

ENOUGH_PROFILED = 10  # of the turns that a profile saw: a rehearsal's has 24
DISTORTION_LIMIT = 1.10
OTHER_HOST = "its host is not the client's: which of its turns were measured is by Unix time there"
MOST_LACKING = 0.02  # share of turns without the GPU's times that is not worth a word
_TURN, _LAUNCH, _OWN = CODES["turn"], CODES["launch"], CODES["own_batch"]
_SENT, _GOT = CODES["send_tokens"], CODES["recv_tokens"]
WAITS = frozenset(CODES[name] for name in rows.WAITS)


def window_of(client: dict[str, Any]) -> Window | None:
    """The measured window of a client's result: first request sent to last token received."""
    requests = [
        each
        for each in client.get("requests") or ()
        if each.get("events") and not each.get("beside")
    ]
    if not requests:
        return None
    return min(r["start_ns"] for r in requests), max(r["events"][-1][0] for r in requests)


def spread(values_ns: Sequence[float]) -> Spread:
    """Of at least one duration (ns)."""
    import numpy as np  # noqa: PLC0415 - a launch that was hardly timed needs none

    from repro_pp_graphs.traces.quantiles import median, quantile  # noqa: PLC0415

    values = np.asarray(values_ns, np.float64) / 1e6
    mean, middle, late = float(np.mean(values)), median(values), quantile(values, 0.99)
    return Spread(
        count=len(values), mean=round(mean, 5), median=round(middle, 5), p99=round(late, 5)
    )


class _Loop:
    """A rank's rows by turn, and what its turns' batches were."""

    def __init__(self, rank: Rows) -> None:
        self.header = rank.header
        self.size = int(rank.header.get("loop_size") or rank.header.get("pp_size") or 1)
        self.depth = self.size - int(rank.header.get("pp_size") or 1)
        self.is_last = rank.header.get("pp_rank") == int(rank.header.get("pp_size") or 0) - 1
        self.turns = {row.turn: row for row in rank.rows if row.kind == _TURN}
        self.calls: dict[int, list[Row]] = defaultdict(list)
        for row in rank.rows:
            if row.kind not in (_TURN, _OWN):
                self.calls[row.turn].append(row)
        self.own = {row.turn: row for row in rank.rows if row.kind == _OWN}
        ordered = sorted(self.own.values(), key=lambda row: row.begin_ns)
        self._begins = [row.begin_ns for row in ordered]
        self._ends = [row.end_ns for row in ordered]

    def mode(self, turn: int) -> Mode | None:
        """What the batch launched in a turn was; None for no batch, or where no row tells."""
        row = self.turns.get(turn)
        if row is None:
            return None
        return (
            "decode" if row.flags & rows.DECODE else "prefill" if row.flags & rows.PREFILL else None
        )

    def batch_turn(self, row: Row) -> int:
        """The turn in which the batch was launched that a row is of."""
        if row.kind == _GOT:
            return row.turn - self.size + 1
        if row.kind == _SENT:
            return row.turn - (self.depth if self.is_last else self.size)
        return row.turn

    def steady(self, turn: int) -> bool:
        """Whether the turn and those whose batches it still deals with all decode."""
        return all(self.mode(turn - back) == "decode" for back in range(self.size + 1))

    def is_of(self, turn: int, mode: Mode) -> bool:
        """Whether a turn counts among those of a mode."""
        if mode != "beside_prefill":
            return self.mode(turn) == mode and (mode == "prefill" or self.steady(turn))
        nearby = (self.mode(turn - back) for back in range(1, self.size + 1))
        return self.mode(turn) == "decode" and "prefill" in nearby

    def clock_on(self, turn: int) -> bool:
        """Whether the clock was on in the turn and in those whose batches it still deals with:
        where it alternates, the first turns of a window have batches that were launched untimed."""
        nearby = (self.turns.get(turn - back) for back in range(self.size + 1))
        return not any(row.flags & rows.OFF for row in nearby if row)

    def known_on_gpu(self, turn: int) -> bool:
        """Whether the batches that may run during a turn were all timed on the GPU."""
        nearby = (turn - back for back in range(self.size + 1))
        return all(each in self.own for each in nearby if self.mode(each))

    def in_own_batch(self, begin_ns: int, end_ns: int) -> int:
        """How much of a time (ns) a batch of the rank's own ran on its GPU; one stream, so batches
        follow one another."""
        at = max(0, bisect.bisect_right(self._begins, begin_ns) - 1)
        found, covered = 0, begin_ns
        while at < len(self._begins) and self._begins[at] < end_ns:
            low, high = max(self._begins[at], covered), min(self._ends[at], end_ns)
            found += max(0, high - low)
            covered = max(covered, high)
            at += 1
        return found


def _own_time(row: Row, others: Iterable[Row]) -> int:
    """How long a call took (ns), without the timed calls inside it."""
    inside = (
        other.end_ns - other.begin_ns
        for other in others
        if other is not row and row.begin_ns <= other.begin_ns and other.end_ns <= row.end_ns
    )
    return row.end_ns - row.begin_ns - sum(inside)


def _parts(loop: _Loop, turn: int) -> dict[int, int]:
    """A turn (ns) by kind of call, each without the timed calls inside it; as _TURN the rest."""
    row, calls = loop.turns[turn], loop.calls[turn]
    found: dict[int, int] = defaultdict(int)
    for call in calls:
        found[call.kind] += _own_time(call, calls)
    found[_TURN] = row.end_ns - row.begin_ns - sum(found.values())
    return found


def _calls(loop: _Loop, chosen: Iterable[int], mode: Mode) -> dict[str, Spread]:
    """Calls of batches of that mode, by kind."""
    times: dict[int, list[int]] = defaultdict(list)
    for turn in chosen:
        calls = loop.calls[turn]
        for row in calls:
            if loop.mode(loop.batch_turn(row)) == mode:
                took = _own_time(row, calls) if row.kind == _LAUNCH else row.end_ns - row.begin_ns
                times[row.kind].append(took)
    return {KINDS[kind]: spread(times[kind]) for kind in sorted(times)}


def turns_of(loop: _Loop, chosen: Sequence[int], mode: Mode) -> Turns | None:
    """The facts of those turns; None for none."""
    strict = [turn for turn in chosen if loop.is_of(turn, mode)]
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
    )


def _in_window(loop: _Loop, window: Window | None) -> list[int]:
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


def _profiled(loop: _Loop, during: Window | None) -> list[int]:
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


def _by_mode(loop: _Loop, chosen: Sequence[int]) -> dict[Mode, Turns]:
    modes: tuple[Mode, ...] = ("decode", "beside_prefill", "prefill")
    found = {mode: turns_of(loop, chosen, mode) for mode in modes}
    return {mode: turns for mode, turns in found.items() if turns}


def key_of(header: dict[str, Any], tp_size: int) -> str:
    """A rank's name: PP1, or PP1 TP0 where a stage has several."""
    name = f"PP{header.get('pp_rank')}"
    return f"{name} TP{header.get('tp_rank')}" if tp_size > 1 else name


def _rank(rank: Rows, loop: _Loop, window: Window | None, profiled: dict[Mode, Turns]) -> Rank:
    header = rank.header
    return Rank(
        pp_rank=header.get("pp_rank", -1),
        tp_rank=header.get("tp_rank", -1),
        rows=len(rank.rows),
        lost=rank.lost,
        torn=rank.torn,
        measured=_by_mode(loop, _in_window(loop, window)),
        profiled=profiled,
        found=header.get("found", {}),
        lacks=header.get("lacks", {}),
        failed=header.get("failed", ""),
    )


def never_called(rank: Rank, pp_size: int) -> list[str]:
    """Kinds that a rank in its place must have had in its decode turns, and has not."""
    decode = rank.measured.get("decode")
    if decode is None or decode.turn.count < ENOUGH_TURNS:
        return []
    batched = EXCHANGE in rank.found
    wanted = ["launch", "process", *([EXCHANGE] if batched else ["send_tokens", "recv_tokens"])]
    if rank.pp_rank < pp_size - 1:
        wanted += ["send_hidden"] * (not batched) + ["send_requests"] * (rank.tp_rank == 0)
    if rank.pp_rank > 0:
        wanted += ["recv_hidden"] * (not batched) + ["recv_requests"] * (rank.tp_rank == 0)
    wanted += [name for name in ("wait_results",) if name in rank.found]
    return [name for name in wanted if name not in decode.calls]


def _missed(header: dict[str, Any]) -> str:
    """Why batches were not timed on the GPU, as the rank counted them from its start on."""
    missed: dict[str, int] = header.get("missed", {})
    whys = [f"{missed[name]} while {why}" for name, why in MISSED.items() if missed.get(name)]
    return f" (batches launched since the start: {', '.join(whys)})" if whys else ""


def _rank_warnings(key: str, seen: _Seen, pp_size: int, window: Window | None) -> list[str]:
    rank = seen.rank
    why = absent.of_rank(rank, "lacks" in seen.header, window is not None)
    found = [f"{key}: {why}"] if why else []
    found += [
        f"{key}: {name}: {why}"
        for name, why in rank.lacks.items()
        if why.startswith(("not in this release", "no CUDA events", REFUSED))
    ]
    if lost := never_called(rank, pp_size):
        found.append(
            f"{key}: no call of {', '.join(lost)} was seen: this release, or a shim of the case, "
            "does it in another call, which is not timed or stands under that one's name"
        )
    if rank.lost and window and seen.first_ns is not None and seen.first_ns > window[0]:
        found.append(
            f"{key}: {rank.lost} of its rows were overwritten, some of the measured window: a "
            "larger REPRO_PP_CLOCK_ROWS keeps them"
        )
    decode = rank.measured.get("decode")
    if decode and "own_batch" in rank.found and "own_batch" not in rank.lacks:
        unsplit = decode.turn.count - decode.split
        if unsplit > MOST_LACKING * decode.turn.count:
            found.append(
                f"{key}: {unsplit} of {decode.turn.count} decode turns lack the GPU's times: their "
                f"waits are not split{_missed(seen.header)}"
            )
    return found


def _distortion(rank: Rank | None) -> tuple[float | None, float | None]:
    """Mean and median decode turn, profiled over unprofiled."""
    if rank is None or not {"decode"} <= rank.measured.keys() & rank.profiled.keys():
        return None, None
    measured, profiled = rank.measured["decode"].turn, rank.profiled["decode"].turn
    if measured.count < ENOUGH_TURNS or profiled.count < ENOUGH_PROFILED or not measured.median:
        return None, None
    return round(profiled.mean / measured.mean, 4), round(profiled.median / measured.median, 4)


def _on_off(loop: _Loop) -> OnOff | None:
    """None where the clock did not alternate, or too rarely."""
    size = int(loop.header.get("alternate") or 0)
    if not size:
        return None
    steady = (
        on_off.Turn(turn, row.end_ns - row.begin_ns, bool(row.flags & rows.OFF))
        for turn, row in loop.turns.items()
        if loop.steady(turn) and not row.flags & rows.PROFILED
    )
    return on_off.compared(steady, size, loop.size)


class _Seen(NamedTuple):
    """What is kept of a rank once its rows are gone."""

    header: dict[str, Any]
    rank: Rank
    loop_size: int
    first_ns: int | None  # where its rows begin
    on_off: OnOff | None


def _seen(
    rank: Rows, windows: Sequence[Window | None], profiles: Sequence[Window | None]
) -> list[_Seen]:
    """A rank's facts by each of the windows, with the turns of the profile that belongs to it."""
    loop = _Loop(rank)
    first_ns = rank.rows[0].begin_ns if rank.rows else None
    both = _on_off(loop)
    found = (
        _rank(rank, loop, window, _by_mode(loop, _profiled(loop, profile)))
        for window, profile in zip(windows, profiles, strict=True)
    )
    return [_Seen(rank.header, each, loop.size, first_ns, both) for each in found]


def _placed(window: Window | None, here: dict[str, Any], there: dict[str, Any]) -> Window | None:
    """A window by one host's CLOCK_MONOTONIC as another one's, by their Unix times; the same where
    it is one host, or nothing is known of the hosts."""
    boots = here.get("boot_id"), there.get("boot_id")
    known = all(boots) and "unix_ahead_ns" in here.keys() & there.keys()
    if window is None or not known or boots[0] == boots[1]:
        return window
    later_ns = int(here["unix_ahead_ns"]) - int(there["unix_ahead_ns"])
    return window[0] + later_ns, window[1] + later_ns


def summary(
    ranks: Iterable[Rows], window: Window | None, said: Mapping[str, str] | None = None
) -> ClockFacts:
    """The facts of a launch from its ranks' rows (one rank or more), taken one after the other, and
    its client's window, by the clock of the first rank's host; `said`: by rank, why its clock did
    not start."""
    return summaries(ranks, [window], said)[0]


def summaries(
    ranks: Iterable[Rows],
    windows: Sequence[Window | None],
    said: Mapping[str, str] | None = None,
    profiles: Sequence[Window | None] | None = None,
) -> list[ClockFacts]:
    """The same by each of several windows, as those of the loads of a sweep; `profiles`: when each
    of these was profiled, None for one that was not (not given: every profile is of each)."""
    spans = [ALWAYS] * len(windows) if profiles is None else profiles
    by_window = zip(*_every(ranks, windows, spans), strict=True)
    return [_facts(seen, window, said) for seen, window in zip(by_window, windows, strict=True)]


def _every(
    ranks: Iterable[Rows], windows: Sequence[Window | None], profiles: Sequence[Window | None]
) -> Iterator[list[_Seen]]:
    """Each rank by each of the windows, which are by the clock of the first one's host."""
    here: dict[str, Any] = {}
    for rank in ranks:
        here = here or rank.header
        placed = [_placed(window, here, rank.header) for window in windows]
        yield _seen(rank, placed, [_placed(each, here, rank.header) for each in profiles])


def _distorted(by_means: float, by_medians: float) -> str:
    """That the turns of the traces are not those of the measured pass; in other words where means
    and medians do not agree on which are longer."""
    if min(by_means, by_medians) < 1:
        how = (
            f"is longer than in the measured pass by one figure and shorter by the other: "
            f"{by_means:.2f} times by means, {by_medians:.2f} by medians ({EDGES})"
        )
    else:
        how = (
            f"took {by_means:.2f} times as long as in the measured pass (by means; "
            f"{by_medians:.2f} by medians; {EDGES})"
        )
    return (
        f"under the profiler the last rank's decode turn {how}: ms of the traces are not those of "
        "the measured pass"
    )


def _facts(
    seen: Sequence[_Seen], window: Window | None, said: Mapping[str, str] | None
) -> ClockFacts:
    tp_size = 1 + max(int(each.header.get("tp_rank") or 0) for each in seen)
    pp_size = max(int(each.header.get("pp_size") or 1) for each in seen)
    found = {key_of(each.header, tp_size): each for each in seen}
    last = next((k for k, each in found.items() if each.rank.pp_rank == pp_size - 1), "")
    distortion, distortion_median = _distortion(found[last].rank if last else None)
    warnings = []
    for key, each in found.items():
        placed = _placed(window, seen[0].header, each.header)
        warnings += _rank_warnings(key, each, pp_size, placed)
        if placed != window:
            warnings.append(f"{key}: {OTHER_HOST}")
    missing = set(range(pp_size)) - {each.rank.pp_rank for each in seen}
    warnings += [_no_rows(f"PP{rank}", said or {}) for rank in sorted(missing)]
    if distortion and distortion_median and max(distortion, distortion_median) > DISTORTION_LIMIT:
        warnings.append(_distorted(distortion, distortion_median))
    return ClockFacts(
        pp_size=pp_size,
        loop_size=max(each.loop_size for each in seen),
        ranks={key: each.rank for key, each in found.items()},
        last=last,
        window_s=round((window[1] - window[0]) / 1e9, 3) if window else None,
        distortion=distortion,
        distortion_median=distortion_median,
        on_off=found[last].on_off if last else None,
        warnings=_together([visible(text) for text in warnings]),
    )


def _no_rows(key: str, said: Mapping[str, str]) -> str:
    why = next((text for rank, text in said.items() if rank.split()[:1] == [key]), "")
    return f"{key} left no rows" + (f": {why}" if why else "")


def _together(warnings: list[str]) -> list[str]:
    """Warnings that several ranks share, once: `PP0, PP1: ...`."""
    whose: dict[str, list[str]] = defaultdict(list)
    for text in warnings:
        head, colon, rest = text.partition(": ")
        whose[rest if colon and head.startswith("PP") else text].append(head if colon else "")
    return [
        f"{', '.join(heads)}: {text}" if heads[0].startswith("PP") and text != heads[0] else text
        for text, heads in whose.items()
    ]

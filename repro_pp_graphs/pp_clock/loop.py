"""A rank's rows by the turn that they were written in, and which batch each is of.

The batch that a message is of may have been launched in another turn than its row's. With `loop`
micro-batches in flight and `pp` ranks the last rank sends the tokens of the batch launched
loop - pp turns ago, a rank receives those of loop - 1 turns ago, and one that is not the last sends
on those of loop turns ago.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.clock_record import Mode
from repro_pp_graphs.pp_clock.rows import CODES, Row, Rows

_TURN, _OWN = CODES["turn"], CODES["own_batch"]
_SENT, _GOT = CODES["send_tokens"], CODES["recv_tokens"]


class Loop:
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
        # turns without work leave no row; those that may matter for a turn after them
        self._idle = {
            row.turn - back
            for row in self.turns.values()
            for back in range(1, min(row.value, 2 * self.size) + 1)
        }
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

    def _empty(self, turn: int) -> bool:
        """Whether a turn is known to have launched no batch."""
        return self.mode(turn) is None if turn in self.turns else turn in self._idle

    def in_flight(self, turn: int) -> int:
        """Micro-batches that decode in the round of the loop that ends with a turn: its places with
        a batch. 0 where the turn or what it still deals with is not all decode, or a place that is
        empty was not a round before, or is not known to be empty."""
        modes = [self.mode(turn - back) for back in range(self.size + 1)]
        if "prefill" in modes or not modes[0] == modes[-1] == "decode":
            return 0
        empty = [turn - back for back, mode in enumerate(modes) if mode is None]
        known = all(self._empty(each) and self._empty(each - self.size) for each in empty)
        return self.size - len(empty) if known else 0

    def steady(self, turn: int) -> bool:
        """Whether the turn and those whose batches it still deals with all decode."""
        return self.in_flight(turn) == self.size

    def decoding(self, chosen: Iterable[int]) -> tuple[list[int], int]:
        """The decode turns among those, and the micro-batches in flight in their rounds: as many as
        in most of them, since turns of rounds with fewer wait for other things."""
        by_count: dict[int, list[int]] = defaultdict(list)
        for turn in chosen:
            by_count[self.in_flight(turn)].append(turn)
        by_count.pop(0, None)
        count = max(by_count, key=lambda count: (len(by_count[count]), count), default=0)
        return by_count[count], count

    def is_beside_prefill(self, turn: int) -> bool:
        """Whether a turn decodes while one whose batch it still deals with prefills."""
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

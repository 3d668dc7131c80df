"""Which message belongs to which turn of the ring; every rank works it out for itself.

A rank's turn t runs micro-batch t mod slots, as sglang's event_loop_pp does: there is a slot for
each rank, and as many more as the asynchronous depth. The token ids of turn t go from the last rank
to rank 0 and on round the ring; a rank receives in turn t those of turn t + 1 - slots.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run of `steps` decode steps of `micro_batches` micro-batches over `ranks` ranks."""

    ranks: int
    micro_batches: int
    steps: int

    @property
    def slots(self) -> int:
        return max(self.ranks, self.micro_batches)

    @property
    def depth(self) -> int:
        """Turns that the last rank holds its token ids back (sglang: pp_async_batch_depth)."""
        return self.slots - self.ranks

    @property
    def turns(self) -> int:
        """Turns until the last token ids have been round the ring."""
        return (self.steps + 1) * self.slots

    def runs(self, turn: int) -> bool:
        """Whether a batch runs in that turn."""
        return 0 <= turn < self.steps * self.slots and turn % self.slots < self.micro_batches

    def received(self, turn: int) -> int:
        """The turn whose token ids a rank receives in `turn`; it may not exist."""
        return turn + 1 - self.slots

    def sent(self, turn: int, rank: int) -> int:
        """The turn whose token ids `rank` passes on in `turn`; it may not exist."""
        return turn - self.depth if rank == self.ranks - 1 else turn - self.slots

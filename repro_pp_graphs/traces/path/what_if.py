"""How long a decode step would take if something took no time, or less: the same graph, timed
again.

Nothing waits for a time of its own: a wait is what comes out. So a wait gets shorter, or moves to
another call, as it would.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.explain.words import IN_MESSAGES, ROWS
from repro_pp_graphs.traces.path.graph import Kind, Timing
from repro_pp_graphs.traces.path.host_time import LAUNCH, OPERATORS, PYTHON, saved
from repro_pp_graphs.traces.path.rank_line import RankLine, Ring

Ints = npt.NDArray[np.int64]

MESSAGES: tuple[str, ...] = IN_MESSAGES
GPU, PEER = "gpu", "peer"
# Whose length is the host's own time.
OF_HOST = (Kind.HOST, Kind.CUDA_CALL, Kind.GLOO_CALL)
# So early that it is never what a moment waits for.
NEVER = -(2**60)


@dataclass(frozen=True, slots=True)
class Change:
    """What is different, as factors of what it takes now.

    `host`: the rows of a host's time; `graph`, `eager`: kernels; `transfer`: messages; `launch`:
    from a launch to its kernel, a message's too; `no_wait`: (for what, in which row) the host waits
    no more, with row "" outside of messages; `last_host`, `last_no_wait`: the same, of the last
    rank alone.
    """

    host: dict[str, float] = field(default_factory=dict)
    graph: float = 1.0
    eager: float = 1.0
    transfer: float = 1.0
    launch: float = 1.0
    no_wait: frozenset[tuple[str, str]] = frozenset()
    last_host: dict[str, float] = field(default_factory=dict)
    last_no_wait: frozenset[tuple[str, str]] = frozenset()

    def and_also(self, other: Change) -> Change:
        """Both at once: factors of the same thing are multiplied."""
        return Change(
            host=_product(self.host, other.host),
            graph=self.graph * other.graph,
            eager=self.eager * other.eager,
            transfer=self.transfer * other.transfer,
            launch=self.launch * other.launch,
            no_wait=self.no_wait | other.no_wait,
            last_host=_product(self.last_host, other.last_host),
            last_no_wait=self.last_no_wait | other.last_no_wait,
        )


def _product(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: one.get(name, 1.0) * other.get(name, 1.0) for name in (*one, *other)}


class WhatIf:
    """A fitted graph that can be timed again with changes."""

    def __init__(self, ring: Ring, timing: Timing) -> None:
        self.ring, self.timing = ring, timing

    def retimed(self, change: Change) -> Ints:
        """When each moment of the graph would be reached, ns."""
        timing = self.timing
        weight = timing.weight.copy()
        for kind, factor in (
            (Kind.GRAPH, change.graph),
            (Kind.EAGER, change.eager),
            (Kind.TRANSFER, change.transfer),
            (Kind.MESSAGE, change.transfer),
            (Kind.GLOO, change.transfer),
            (Kind.GLOO_CALL, change.transfer),
        ):
            if factor != 1:
                these = timing.kind == kind
                weight[these] = np.rint(weight[these] * factor).astype(np.int64)
        of_messages = (timing.kind == Kind.LAUNCH) & (timing.ref < 0) & (weight > 0)
        weight[of_messages] = np.rint(weight[of_messages] * change.launch).astype(np.int64)
        for line in self.ring.ranks:
            if len(line.line.ns):
                host, no_wait = change.host, change.no_wait
                if line is self.ring.ranks[-1]:
                    host = _product(host, change.last_host)
                    no_wait |= change.last_no_wait
                self._host(line, change, host, weight)
                self._waits(line, no_wait, weight)
        return timing.retimed(weight, timing.rest)

    def _host(
        self, line: RankLine, change: Change, factors: dict[str, float], weight: Ints
    ) -> None:
        """What the host saves on its own way, and until it launches something."""
        if not factors and change.launch == 1 and change.eager == 1:
            return
        timing, groups, items = self.timing, line.groups, line.groups.source
        ours = timing.rank[timing.dst] == line.index
        moments = line.line.ns
        since = int(moments[0])
        at = saved(line.rows, factors, moments, since)
        own = np.flatnonzero(ours & np.isin(timing.kind, OF_HOST) & (timing.ref >= 0))
        stretches = timing.ref[own]
        # a launch of PP0 lies within its stretch: it is what its offset leaves of it
        until = timing.time[timing.dst[own]] + line.ahead_ns
        spent = saved(line.rows, factors, until, since) - at[stretches]
        weight[own] = np.maximum(weight[own] - spent, np.minimum(weight[own], 0))
        if not len(groups):
            return
        stretch = np.maximum(groups.stretch, 0)
        posted = saved(line.rows, factors, groups.posted, since) - at[stretch]
        less = posted + np.rint((1 - change.launch) * groups.launch).astype(np.int64)
        launches = np.flatnonzero(ours & (timing.kind == Kind.LAUNCH) & (timing.ref >= 0))
        weight[launches] -= less[timing.ref[launches]]
        number = np.repeat(
            np.arange(len(groups)), np.diff(np.append(items.first, len(items.start)))
        )
        begin = stretch[number]
        offsets = items.posted - moments[begin]
        offsets = offsets - (saved(line.rows, factors, items.posted, since) - at[begin])
        late = items.late(
            offsets,
            np.rint(items.launch * change.launch).astype(np.int64),
            np.rint(items.takes * change.eager).astype(np.int64),
        )[0]
        run_up = np.flatnonzero(ours & (timing.kind == Kind.RUN_UP))
        weight[run_up] += (late - groups.late)[timing.ref[run_up]]

    def _waits(self, line: RankLine, no_wait: frozenset[tuple[str, str]], weight: Ints) -> None:
        """Take away what the host no longer waits for."""
        if not no_wait:
            return
        timing = self.timing
        for number, moment in enumerate(line.line.moments):
            if moment.kind != "back" or moment.wait is None or not number:
                continue
            what = PEER if moment.wait.for_peer else GPU
            if (what, moment.wait.row) in no_wait:
                back, before = line.host_at[number], line.host_at[number - 1]
                edges = np.arange(timing.first[back], timing.first[back + 1])
                weight[edges[timing.src[edges] != before]] = NEVER


def _without_waits(rows: tuple[str, ...], whats: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((what, row) for what in whats for row in rows)


NO_TIME_IN_MESSAGES: dict[str, float] = dict.fromkeys(MESSAGES, 0.0)
IN_SENDS = _without_waits(("token_send", "hidden_send"), (GPU, PEER))
GPU_IN_MESSAGES = _without_waits(MESSAGES, (GPU,))
# what the remedies of the issue take away at most; docs/ring_path.md says what each of them keeps
REMEDIES = {
    "send": Change(host=NO_TIME_IN_MESSAGES, no_wait=IN_SENDS | GPU_IN_MESSAGES),
    "token_send": Change(
        last_host={"token_send": 0.0}, last_no_wait=_without_waits(("token_send",), (GPU, PEER))
    ),
    "comm_stream": Change(last_no_wait=_without_waits(("token_send",), (GPU,))),
    "event_send": Change(no_wait=GPU_IN_MESSAGES),
    "batched_p2p": Change(host=NO_TIME_IN_MESSAGES, no_wait=_without_waits(MESSAGES, (GPU, PEER))),
}
# what cannot be asked where token ids go in one batch with what the last rank receives
NOT_OF_A_BATCH = ("token_send", "comm_stream", "batched_p2p")
IN_A_BATCH = "token ids go in one batch with what the last rank receives (batch_isend_irecv)"
# what cannot be asked of a CPU run, whose messages go over gloo whole: no wait for a GPU to take
# away, no launches, and a batch of messages would take away the wait for the data itself
OF_A_GPU = ("sync", "launch", "comm_stream", "event_send", "batched_p2p")
ON_A_CPU = "the traces show no GPU work"
CATEGORIES = ("send", "sync", "launch", "transfer", "compute", "host")
# Of these a wait is taken away whole, or not at all.
WHOLE = ("send", "sync")


def change_of(category: str, factor: float) -> Change:
    """The change in which a category of `--what-if` takes `factor` times as long.

    Raises ValueError, in a sentence for the user, for a category that is not known, and for a
    factor that it cannot have.
    """
    if category not in CATEGORIES:
        known = dict.fromkeys((*CATEGORIES, *REMEDIES))
        raise ValueError(f"{category} is none of {', '.join(known)}")
    if not 0 <= factor < float("inf") or (category in WHOLE and factor not in (0, 1)):
        allowed = "0 or 1" if category in WHOLE else "0 or more"
        raise ValueError(f"{category}={factor:g}: give {allowed}")
    if category in WHOLE:
        all_waits = Change(no_wait=_without_waits(("", *MESSAGES), (GPU,)))
        changed = REMEDIES["send"] if category == "send" else all_waits
        return changed if factor == 0 else Change()
    return {
        "launch": Change(host={LAUNCH: factor}, launch=factor),
        "transfer": Change(transfer=factor),
        "compute": Change(graph=factor, eager=factor),
        "host": Change(host=dict.fromkeys((*ROWS, OPERATORS, PYTHON), factor)),
    }[category]

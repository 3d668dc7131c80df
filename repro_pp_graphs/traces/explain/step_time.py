"""How long a decode step takes: one micro-batch followed from rank 0 round the ring and back.

Each message is followed to its paired receive, from rank 0's hidden states to its receive of the
token ids. Nothing is assumed of how many micro-batches are under way: it is counted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.analysis_record import DecodeStep
from repro_pp_graphs.traces.explain.coverage import (
    LEAST,
    almost_all,
    batches_there,
    enough,
    recorded_by_all,
)
from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.messages import Message
from repro_pp_graphs.traces.explain.steps import micro_batches, named
from repro_pp_graphs.traces.explain.words import count
from repro_pp_graphs.traces.quantiles import quantile
from repro_pp_graphs.traces.rank_trace import RUN_SPANS, Case


class _Lane:
    """One rank of the ring: its messages by start, and how to find one by a moment."""

    def __init__(self, host: Host, last: bool) -> None:
        self.host = host
        self.sent = host.of("tokens" if last else "hidden", "send")
        # in an exchange only what had come before it can have been run for it
        self.ends = [each.start_ns if each.exchange else each.end_ns for each in self.sent]
        self.runs = named(host.rank, RUN_SPANS)
        self.run_ends = [span.end_ns for span in self.runs]
        self.received = {what: host.of(what, "recv") for what in ("tokens", "hidden")}
        self.starts = {
            what: [message.start_ns for message in found] for what, found in self.received.items()
        }

    def is_complete(self, begin_ns: int, end_ns: int) -> bool:
        """Whether what its batches gave is seen for almost all of them."""
        seen = sum(begin_ns <= message.start_ns <= end_ns for message in self.sent)
        return almost_all(seen, batches_there(self.host, begin_ns, end_ns))

    def sent_after(self, moment_ns: int) -> Message | None:
        """What the batch gave whose input came at a moment: a host receives, runs, then sends; it
        may receive inside of what runs the batch.

        None where it sends before it runs, as the last rank does with --pp-async-batch-depth: that
        message is of an earlier batch, of which one is not known.
        """
        at = bisect_left(self.ends, moment_ns)
        if at == len(self.sent):
            return None
        runs = bisect_left(self.run_ends, moment_ns)
        late = runs == len(self.runs) or self.runs[runs].start_ns > self.sent[at].start_ns
        return None if self.runs and late else self.sent[at]

    def sends_first(self) -> bool:
        """Whether it sends before it runs what it has received, with --pp-async-batch-depth."""
        arrived = [message.end_ns for message in self.received["hidden"]]
        arrived = [moment for moment in arrived if moment <= max(self.ends, default=0)]
        known = sum(self.sent_after(moment) is not None for moment in arrived)
        return bool(self.runs) and known < 0.5 * len(arrived)

    def receive_of(self, message: Message, sender: Host, what: str) -> Message | None:
        """The message in which this rank receives another's; None where no end of it is paired."""
        for operation in message.operations:
            for op in operation.p2p:
                partner = sender.other.get(id(op)) if op.kind == "send" else None
                if partner is None or partner.posted_ns is None:
                    continue
                at = bisect_right(self.starts[what], partner.posted_ns) - 1
                if at >= 0 and partner.posted_ns <= self.received[what][at].end_ns:
                    return self.received[what][at]
        return None


LATE = "messages seem to be paired a turn late, as where the ranks' clocks are apart"
DEPTH = "the last rank sends before it runs, as with --pp-async-batch-depth"


def decode_step(case: Case, hosts: list[Host]) -> DecodeStep | str:
    """The decode step as rank 0 sees it; why it is not known where it is not."""
    ranks = sorted((h for h in hosts if h.rank.tp == 0), key=lambda host: host.rank.pp)
    if case.pp_size < 2 or [host.rank.pp for host in ranks] != list(range(case.pp_size)):
        return "not every rank has a trace"
    ring = [_Lane(host, last=host is ranks[-1]) for host in ranks]
    begin_ns, end_ns = recorded_by_all(case, hosts)
    for lane in ring:
        if not lane.is_complete(begin_ns, end_ns):
            return f"too few of PP{lane.host.rank.pp}'s batches can be recognised by their messages"
    if ring[-1].sends_first():
        return DEPTH
    starts = [message.start_ns for message in ring[0].sent]
    launched = _launches(ranks[0], len(starts))
    lengths, counts = [], []
    for at, message in enumerate(ring[0].sent):
        back = _followed(ring, message)
        following = len(starts) if back is None else _next_batch(ring[0].sent, launched, back)
        if following >= len(starts) or ring[0].sent[following].prefill or message.prefill:
            continue
        if _lacks_a_message(ring[0], starts[at], starts[following], following - at):
            continue
        if begin_ns <= starts[at] and starts[following] <= end_ns:
            lengths.append((starts[following] - starts[at]) / 1000)
            counts.append(following - at)
    usual = round(quantile(np.array(counts), 0.5)) if counts else 0
    values = np.array([us for us, number in zip(lengths, counts, strict=True) if number == usual])
    there = min(len(starts) - usual, batches_there(ranks[0], begin_ns, end_ns))
    if not enough(len(values), there):
        few = f"{count(max(there, 0), 'step')} recorded whole: too few"
        followed = f"only {len(values)} of PP0's {count(there, 'batch')} can be followed"
        return few if there < LEAST else f"{followed} round the ring by their messages"
    if late := _paired_late(case, ranks, usual):
        return f"{LATE}: {late}"
    return DecodeStep(
        steps=len(values),
        mean=round(float(np.mean(values)), 3),
        median=round(quantile(values, 0.5), 3),
        p99=round(quantile(values, 0.99), 3),
        micro_batches=usual,
    )


def _paired_late(case: Case, ranks: list[Host], followed: int) -> str:
    """Why so many micro-batches under way cannot be: messages were paired with those of the turn
    before. Empty where they can. sglang's loop has one a rank, but with --pp-async-batch-depth;
    where clocks may differ, as where no file names its host, no more than it has slots that run a
    batch, as annotated."""
    if followed > case.pp_size:
        return f"{followed} micro-batches in {case.pp_size} ranks"
    names = {host.rank.host for host in ranks}
    one_host = len(names) == 1 and "" not in names
    numbered = any(op.number for host in ranks for op in host.rank.p2p)
    known = None if one_host or numbered else micro_batches(case)
    if known and followed > known:
        return f"{followed} micro-batches round the ring, {known} in the ranks' loops"
    return ""


def _lacks_a_message(lane: _Lane, begin_ns: int, end_ns: int, sent: int) -> bool:
    """Whether rank 0 ran other than as many batches in a step as it sent off, by its annotations: a
    message of one is missing, and the step is a turn longer than it seems."""
    ran = sum(begin_ns <= span.start_ns < end_ns for span in lane.runs)
    return bool(lane.runs) and ran != sent


def _launches(host: Host, batches: int) -> npt.NDArray[np.int64]:
    """When a host launches: its batches as annotated, else its graphs, else all its operators."""
    marked = [span.start_ns for span in named(host.rank, RUN_SPANS)]
    graphs = [start for start, _, _ in host.rank.launches]
    for moments in (marked, graphs):
        if enough(len(moments), batches):
            return np.array(moments, dtype=np.int64)
    return host.rank.operators[:, 0]


def _next_batch(sent: list[Message], launched: npt.NDArray[np.int64], back: Message) -> int:
    """Which of rank 0's sends of hidden states is of the first batch launched after some tokens.

    The next one may be of a batch that was launched before the tokens came: where more was launched
    between the send before and the tokens than between the tokens and that send.
    """
    at = bisect_right(sent, back.start_ns, key=lambda message: message.start_ns)
    if at == len(sent):
        return at
    before = sent[at - 1].end_ns if at else 0
    moments = np.array([before, back.start_ns, back.end_ns, sent[at].start_ns])
    counts = np.diff(launched.searchsorted(moments))
    return at + 1 if counts[0] > counts[2] else at


def _followed(ring: list[_Lane], message: Message) -> Message | None:
    """Rank 0's receive of the tokens that a message of hidden states from it leads to."""
    for lane, following in pairwise(ring):
        arrived = following.receive_of(message, lane.host, "hidden")
        sent = arrived and following.sent_after(arrived.end_ns)
        if sent is None:
            return None
        message = sent
    return ring[0].receive_of(message, ring[-1].host, "tokens")

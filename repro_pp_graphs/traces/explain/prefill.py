"""Which messages belong to prefill batches: they are left out of what is said of decode steps.

sglang's annotations of steps say so (`step[EXTEND ...]`). Before 0.5.7 there are none: then a batch
is a prefill where its hidden states are of more tokens than it has sequences.
"""

from __future__ import annotations

from bisect import bisect_right

from repro_pp_graphs.traces.explain.host import Host, token_count
from repro_pp_graphs.traces.explain.messages import Message
from repro_pp_graphs.traces.explain.steps import STEP

PREFILL_MODES = frozenset({"EXTEND", "MIXED", "SPLIT_PREFILL"})
# Hidden states of this many times the elements of a decode step's are of a prefill.
MORE = 1.5


def mark_prefill(hosts: list[Host], pp_size: int) -> None:
    """Set `prefill` on the messages in which prefill batches of all ranks send what they gave."""
    largest = _elements_of_decode(hosts, pp_size)
    for host in hosts:
        sends = host.of("tokens" if host.rank.pp == pp_size - 1 else "hidden", "send")
        marks = [(span.start_ns, m[1]) for span in host.rank.spans if (m := STEP.match(span.name))]
        if marks:
            _by_marks(sends, marks)
        elif largest is not None:
            _by_content(host, sends, largest, last=host.rank.pp == pp_size - 1)


def _by_marks(sends: list[Message], marks: list[tuple[int, str]]) -> None:
    for message in sends:
        at = bisect_right(marks, message.start_ns, key=lambda mark: mark[0]) - 1
        message.prefill = at >= 0 and marks[at][1] in PREFILL_MODES


def _elements_of_decode(hosts: list[Host], pp_size: int) -> float | None:
    """Elements of the hidden states of one token; None where the trace does not say.

    The least elements a sequence among the last ranks' batches: those of a decode step.
    """
    shares = [
        elements / tokens
        for host in hosts
        if host.rank.pp == pp_size - 1
        for message, sent in _batches(host)
        if (elements := hidden_elements(message)) and (tokens := token_count(sent))
    ]
    return min(shares) if shares else None


def _batches(host: Host) -> list[tuple[Message, Message]]:
    """A last rank's receives of hidden states, each with the token ids that came of it."""
    received = host.of("hidden", "recv")
    found = []
    for sent in host.of("tokens", "send"):
        at = bisect_right(received, sent.start_ns, key=_received_ns) - 1
        if at >= 0:
            found.append((received[at], sent))
    return found


def _received_ns(message: Message) -> int:
    """From when on what a message brings can be run, ns; in an exchange not before its end."""
    return message.end_ns if message.exchange else message.start_ns


def hidden_elements(message: Message) -> int | None:
    """Elements of the first tensor of hidden states in a message."""
    sizes = [
        op.elements
        for part in message.operations
        for op in part.p2p
        if op.backend == "nccl" and op.dtype != "Byte" and op.elements
    ]
    return sizes[0] if sizes else None


def _by_content(host: Host, sends: list[Message], a_token: float, last: bool) -> None:
    if last:
        for message, sent in _batches(host):
            tokens = token_count(sent)
            elements = hidden_elements(message)
            sent.prefill = bool(elements and tokens and elements > MORE * a_token * tokens)
        return
    # a rank that does not send token ids in the same turn: by the sizes of all its batches
    counts = [token_count(message) or 0 for message in host.of("tokens", "recv")]
    most = max(counts, default=0)
    for message in sends:
        elements = hidden_elements(message)
        message.prefill = bool(most and elements and elements > MORE * a_token * most)

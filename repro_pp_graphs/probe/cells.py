"""What the probe measures: cells of a graph state and a send path, in balanced order."""

from __future__ import annotations

from dataclasses import dataclass

# the remedies are called as the cases of run_repro.sh that are their counterparts
SENDS = ("blocking", "async", "comm_stream", "event_send", "batched_p2p")
BATCHED = "batched"  # what batched_p2p was called first, still taken
# remedies that touch different parts of a blocking send, and so go together
COMBINABLE = ("comm_stream", "event_send")


@dataclass(frozen=True, slots=True)
class Send:
    """A send path: blocking as sglang 0.5.2, with remedies on top; or async as 0.5.7 and later."""

    name: str

    @property
    def asynchronous(self) -> bool:
        return self.name == "async"

    @property
    def batched(self) -> bool:
        """A turn's sends and recvs in one batch_isend_irecv, shapes agreed on beforehand."""
        return self.name == "batched_p2p"

    @property
    def comm_stream(self) -> bool:
        """The last rank's token send on a stream of its own."""
        return "comm_stream" in self.name.split("+")

    @property
    def events(self) -> bool:
        """Pinned copies and CUDA events where 0.5.2 synchronises the whole stream."""
        return "event_send" in self.name.split("+")


def parse_send(text: str) -> Send:
    """One of SENDS, or `comm_stream+event_send`. Raises ValueError with what is allowed."""
    text = "batched_p2p" if text == BATCHED else text
    parts = text.split("+")
    combined = len(parts) > 1 and len(set(parts)) == len(parts) and set(parts) <= {*COMBINABLE}
    if text not in SENDS and not combined:
        allowed = f"one of {', '.join(SENDS)}, or {'+'.join(COMBINABLE)}"
        raise ValueError(f"no send path '{text}': {allowed}")
    return Send("+".join(sorted(parts, key=COMBINABLE.index)) if combined else text)


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: a graph state, a send path, the repetition it belongs to (from 1)."""

    graphs: bool
    send: Send
    repetition: int

    @property
    def name(self) -> str:
        return f"graphs_{'on' if self.graphs else 'off'}_{self.send.name}"


def balanced(graphs: list[bool], sends: list[Send], repetitions: int) -> list[Cell]:
    """Every combination once a repetition; every second repetition backwards (drift cancels)."""
    combinations = [(state, send) for send in sends for state in graphs]
    return [
        Cell(state, send, number)
        for number in range(1, repetitions + 1)
        for state, send in (combinations if number % 2 else reversed(combinations))
    ]

"""One request: what is sent, and the raw reads of what comes back."""

from __future__ import annotations

import math
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

from .answer import Answer
from .clock import Ancillary, KernelClock
from .events import KEPT_BYTES
from .options import Options
from .record import Record

OUTPUT_SIGNS = (b'"choices"', b'"meta_info"')
Slab = memoryview | bytes
Read = tuple[int, Slab, int, int, Ancillary]  # ns when it returned; bytes [from, to) of a slab


def beside_options(options: Options) -> Options:
    """Of the requests beside the load: synthetic prompts of their length, one new token each."""
    own = {"prompts": None, "input_len": options.beside_input_len, "max_new_tokens": 1}
    return Options(**(vars(options) | own))


@dataclass(eq=False)
class Stream:
    """One HTTP request and what came back."""

    body: bytes
    prompts: int
    due_offset_ns: int | None = None
    beside: bool = False  # arrives beside the load, and is not of it
    lane: int = 0
    intended_ns: int = 0
    start_ns: int = 0
    sent_ns: int = 0
    last_ns: int = 0  # the latest read
    end_ns: int = 0
    reads: deque[Read] = field(default_factory=deque)
    error: str | None = None
    prepared: requests.PreparedRequest | None = None
    sock: socket.socket | None = None
    receive: Callable[..., tuple[int, Ancillary, int, Any]] | None = None

    def __post_init__(self) -> None:
        self.answer = Answer(self.prompts)

    def failed_early(self) -> bool:
        """True if it surely brought no tokens, which is seen without parsing: it is short and holds
        no output. So is an HTTP error, a web page or an error with status 200, no connection.
        """
        if self.answer.has_output():
            return False
        came, raw = 0, []
        for _, slab, start, end, _ in list(self.reads):
            came += end - start
            raw.append(bytes(slab[start:end]))
            if came > KEPT_BYTES or any(sign in raw[-1] for sign in OUTPUT_SIGNS):
                return False
        whole = b"".join(raw)  # a sign may lie across two reads
        return not any(sign in whole for sign in OUTPUT_SIGNS)

    def parse_reads(
        self, clock: KernelClock, until_ns: float = math.inf, most: int = sys.maxsize
    ) -> bool:
        """Parse and drop reads that returned by `until_ns`, up to `most`; True if more are left."""
        reads, feed, arrival_ns = self.reads, self.answer.feed, clock.arrival_ns
        for _ in range(min(most, len(reads))):
            if reads[0][0] > until_ns:
                return False
            returned_ns, slab, start, end, ancillary = reads.popleft()
            feed(arrival_ns(returned_ns, ancillary), bytes(slab[start:end]))
        return bool(reads and reads[0][0] <= until_ns)


def parse_stream(stream: Stream, options: Options, clock: KernelClock) -> list[Record]:
    """One record a prompt. An error is set on the prompts it concerns; what arrived is kept."""
    stream.parse_reads(clock)
    if stream.beside:
        options = beside_options(options)
    records = stream.answer.finish(stream.error, options)
    for record in records:
        record.start_ns, record.sent_ns = stream.start_ns, stream.sent_ns
        record.intended_ns, record.lane = stream.intended_ns, stream.lane
        record.beside = stream.beside
    return records

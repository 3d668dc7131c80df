"""What came back for one prompt: when tokens arrived, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Record:
    """One prompt; `events` are [arrival_ns, cumulative tokens], each with a new token or more."""

    start_ns: int = 0
    sent_ns: int = 0
    intended_ns: int = 0
    lane: int = 0
    events: list[list[int]] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None
    output_ids_sha256: str | None = None  # of the token ids; None: not sent, or not all
    error: str | None = None
    uncounted_ns: list[int] = field(default_factory=list)  # text came, its count not yet
    counted_late: bool = False  # some counts came after the text they count
    beside: bool = False  # arrived beside the load: in none of its figures
    went_on: bool = False  # text came after its finish reason, which then was not the end

    def add(self, arrival_ns: int, cumulative_tokens: int | None, text: bool = True) -> None:
        """An event: the tokens so far, None where it does not say; `text`: it brought some."""
        if cumulative_tokens is None or self.uncounted_ns:
            if text:
                self.went_on = self.went_on or self.finish_reason is not None
                self.uncounted_ns.append(arrival_ns)
            if cumulative_tokens is not None:
                self.count_late(cumulative_tokens)
        elif cumulative_tokens > self.tokens:
            if self.finish_reason is not None:
                self.went_on = True
            self.tokens = cumulative_tokens
            self.events.append([arrival_ns, cumulative_tokens])

    def count_late(self, cumulative_tokens: int) -> None:
        """Give the text that came uncounted its tokens."""
        if cumulative_tokens > self.tokens:
            self.events += count_arrivals(self.uncounted_ns, self.tokens, cumulative_tokens)
            self.tokens = cumulative_tokens
        self.uncounted_ns, self.counted_late = [], True


def of_load(records: Sequence[Record]) -> list[Record]:
    """Those of the load itself, without what arrived beside it."""
    return [record for record in records if not record.beside]


def count_arrivals(arrivals_ns: Sequence[int], before: int, total: int) -> list[list[int]]:
    """[arrival_ns, cumulative tokens] of arrivals (one or more) that led from `before` to `total`.

    As many arrivals as tokens are one token each. Otherwise only the last arrival is kept, and the
    first of a stream: TTFT, TPOT and E2E hold, single gaps are unknown.
    """
    first, last = arrivals_ns[0], arrivals_ns[-1]
    if len(arrivals_ns) == total - before:
        return [[ns, tokens] for tokens, ns in enumerate(arrivals_ns, before + 1)]
    if before > 0 or first == last:
        return [[last, total]]
    return [[first, 1], [last, total]] if total > 1 else [[first, 1]]

"""A few decode steps of all PP ranks as slices, as they are stored. Light to import: no numpy."""

from __future__ import annotations

from typing import Literal

import msgspec


class Slice(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """From one moment to another, us from the begin of the stretch; `what`: more words on it."""

    kind: str
    start_us: float
    end_us: float
    what: str = ""


class RankLanes(msgspec.Struct, frozen=True):
    """One rank's slices by start, which do not overlap within a lane.

    `host`: rows of a turn (time in none of them is Python's); `waits`: what the host waits for;
    `gpu`: graph, compute, copy; `sends` and `receives`: waiting (the peer has not begun), moving,
    unpaired.
    """

    label: str
    host: list[Slice]
    waits: list[Slice]
    gpu: list[Slice]
    sends: list[Slice]
    receives: list[Slice]


class Passed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message from rank to rank: labels, begin of its send and end of its receive, us."""

    src: str
    dst: str
    sent_us: float
    received_us: float
    tokens: bool  # from the last rank to the first


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Some decode steps of a case.

    `token_send_ms`: how long each token send of the last rank holds its host, all that are seen
    whole, not only those of the stretch; `gap_us`: GPU work closer together than this is one slice,
    as are a host's operators closer than ten times that.
    """

    schema: Literal[1] = 1
    case: str
    length_us: float
    steps: int  # turns of the last rank that the stretch holds; 0: no token sends are seen
    gap_us: float
    on_gpu: bool
    may_share: bool = False  # ranks share a GPU, or may: a lane then shows the rank's own kernels
    ranks: list[RankLanes]
    passed: list[Passed]
    token_send_ms: list[float]

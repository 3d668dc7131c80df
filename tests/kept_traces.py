"""Real traces decoded once in a process, for tests that take events out of them or change a header.

Of what is left the package reads all but the file itself: its events have been decoded already.
Nothing that is kept can be changed, and an event that is none of the file's is refused.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import msgspec
from trace_changes import DATA, only_case

from repro_pp_graphs.traces.rank_trace import Case
from repro_pp_graphs.traces.read import cases, rank
from repro_pp_graphs.traces.read.blocks import Header, TraceFile
from repro_pp_graphs.traces.read.decoding import Decoding, Times
from repro_pp_graphs.traces.read.event import Args, Event

Rank = dict[str, Any]  # a rank's document


class KeptArgs(Args, frozen=True):
    """The arguments of a kept event."""


class KeptEvent(Event, frozen=True):
    """An event as the package reads it, which nothing can change."""

    args: KeptArgs | None = None


class Fixed(dict[str, Any]):
    """A JSON object that nothing can change."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("kept for other tests: take it out, or give another file")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = setdefault = clear = _refuse  # type: ignore[assignment]


@dataclass(frozen=True)
class Kept:
    """A rank's file, each event twice: as JSON, and as read (`read`, by the id of the former)."""

    document: Fixed
    read: dict[int, KeptEvent]
    times: Times | None


@cache
def kept(name: str) -> dict[str, Kept]:
    """The files of a real case, by name."""
    return {path.name: _kept(path) for path in sorted((DATA / name).iterdir())}


def _kept(path: Path) -> Kept:
    document = msgspec.json.decode(gzip.decompress(path.read_bytes()))
    events = tuple(
        Fixed({key: Fixed(value) if key == "args" else value for key, value in event.items()})
        for event in document["traceEvents"]
    )
    decoding = Decoding(KeptEvent)
    # of one piece of memory that stays: what is not decoded of an event lies in it
    read = decoding.events(msgspec.json.encode(events))
    by_id = {id(event): one for event, one in zip(events, read, strict=True)}
    return Kept(Fixed(document | {"traceEvents": events}), by_id, decoding.times)


def documents(name: str) -> dict[str, Fixed]:
    """The ranks' documents of a real case by file."""
    return {file: one.document for file, one in kept(name).items()}


def ranks_of(name: str) -> dict[str, Rank]:
    """The same to be changed: headers, and which of its events a rank has."""
    return {
        file: {**document, "traceEvents": list(document["traceEvents"])}
        for file, document in documents(name).items()
    }


def case_of(name: str, ranks: dict[str, Rank]) -> Case:
    """What the package reads of a real case's files, or some of them, changed."""

    def events(trace: TraceFile, decoding: Decoding[Event]) -> Iterator[list[KeptEvent]]:
        file, document = kept(name)[trace.path.name], ranks[trace.path.name]
        said = {field: document.get(field) for field in Header.__struct_fields__}
        trace.header, decoding.times = Header(**said), file.times
        yield [file.read[id(event)] for event in document["traceEvents"]]

    with (
        mock.patch.object(rank, "events_of", events),
        mock.patch.object(cases, "PARALLEL_FROM_BYTES", 1 << 40),  # in this process
    ):
        return only_case(*(DATA / name / file for file in ranks))

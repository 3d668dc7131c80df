"""One event of a trace: only the fields that the analysis needs are decoded."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from repro_pp_graphs.traces.read.blocks import Value, plain
from repro_pp_graphs.traces.read.numbers import number
from repro_pp_graphs.traces.read.peers import Label, Mark
from repro_pp_graphs.traces.read.salvage import NO_JSON

LARGEST = 2**62


class Args(msgspec.Struct, gc=False):
    """The arguments read of an event; a send names only its Dst Rank, a recv its Src Rank."""

    external_id: Value = msgspec.field(default=None, name="External id")
    correlation: Value = None
    collective: Value = msgspec.field(default=None, name="Collective name")
    elements: Value = msgspec.field(default=None, name="In msg nelems")
    dtype: Value = None
    src: Value = msgspec.field(default=None, name="Src Rank")
    dst: Value = msgspec.field(default=None, name="Dst Rank")
    group: Value = msgspec.field(default=None, name="Process Group Name")
    nbytes: Value = msgspec.field(default=None, name="bytes")
    dims: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="Input Dims")
    types: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="Input type")


class Event(msgspec.Struct, gc=False):
    """One trace event; ts and dur in us (-1: none), ts counted from baseTimeNanoseconds."""

    ph: str = ""
    cat: str = ""
    name: Value = ""
    pid: Value = 0
    tid: Value = 0
    ts: float = 0.0
    dur: float = -1.0
    args: Args | None = None


NO_ARGS = Args()


def whole(value: Value) -> int:
    """The value as an int, -1 where it is none."""
    if type(value) is int and -1 <= value < LARGEST:
        return value
    found = number(value)
    return -1 if found is None else found


def label_of(args: Args) -> Label:
    return Label(str(args.collective), args.elements, args.dtype, args.src, args.dst, args.group)


def mark_of(event: Event) -> Mark:
    origin = whole((event.args or NO_ARGS).external_id)
    return Mark(event.ts, event.ts + event.dur, str(event.name), origin, plain(event.tid))


@lru_cache(maxsize=1024)
def shape_of(dims: bytes, types: bytes) -> tuple[int | None, str | None]:
    """Elements and dtype of an operator's first tensor, where the profiler recorded shapes."""
    try:
        sizes, names = msgspec.json.decode(dims), msgspec.json.decode(types)
    except NO_JSON:  # letters that are no UTF-8
        return None, None
    first = sizes[0] if isinstance(sizes, list) and sizes else None
    flat = isinstance(first, list) and all(isinstance(size, int) for size in first)
    return (
        number(math.prod(first)) if first and flat else None,
        str(names[0]) if isinstance(names, list) and names else None,
    )

"""Who an NCCL P2P kernel talks to: its arguments, else the operator or annotation it came from."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from repro_pp_graphs.traces.rank_trace import P2POp
from repro_pp_graphs.traces.read.blocks import Value
from repro_pp_graphs.traces.read.identity import Identity
from repro_pp_graphs.traces.read.numbers import number

ANNOTATION = re.compile(r"nccl:(send|recv) (\d{1,9})(?:->|<-)(\d{1,9})")
# Kineto widens an annotation on the GPU by a ns on either side; us.
SLACK_US = 0.01
SIDES = ("send", "recv")
COALESCED = "nccl:coalesced"  # torch's annotation where a batch_isend_irecv launches its kernel


class Label(NamedTuple):
    """What a P2P operation says of itself; `group` is its process group's name."""

    collective: str = ""
    elements: Value = None
    dtype: Value = None
    src: Value = None
    dst: Value = None
    group: Value = None


class P2PKernel(NamedTuple):
    """A P2P kernel as the trace has it; times in us."""

    ts: float
    dur: float
    pid: Value
    stream: Value
    correlation: int
    external_id: int
    label: Label


class Mark(NamedTuple):
    """An `nccl:` annotation, on the host or on a stream; times in us."""

    ts: float
    end: float
    name: str
    external_id: int
    thread: Value = None


class Asked(NamedTuple):
    """A send or receive that the host asks of NCCL: the operator in which it does so; us."""

    ts: float
    end: float
    external_id: int
    thread: Value
    label: Label


NO_MARK = Mark(0.0, 0.0, "", -1)


@dataclass(slots=True)
class LaunchSite:
    """Where kernels came from: c10d operators by id (what they say, when they begin) and in order,
    annotations on host and GPU, launch calls by correlation."""

    params: dict[int, Label] = field(default_factory=dict)
    operators: dict[int, float] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    host: list[Mark] = field(default_factory=list)
    gpu: dict[Value, list[Mark]] = field(default_factory=dict)
    calls: dict[int, float] = field(default_factory=dict)
    graphs: list[float] = field(default_factory=list)  # launches of graphs: none is inside a batch

    def sort(self) -> None:
        """Put annotations in order; to be called before `annotation` and `posted`."""
        for marks in (self.host, *self.gpu.values()):
            marks.sort(key=lambda mark: mark[:4])
        begun = {mark.external_id: mark.ts for mark in self.host if mark.external_id >= 0}
        self.operators = begun | self.operators

    def annotation(self, kernel: P2PKernel) -> Mark:
        """The `nccl:` annotation around the kernel on its stream, else around its launch."""
        found = _around(self.gpu.get(kernel.stream, []), kernel.ts + SLACK_US)
        if found is NO_MARK and kernel.correlation in self.calls:
            found = _around(self.host, self.calls[kernel.correlation])
        return found

    def is_p2p(self, kernel: P2PKernel) -> bool:
        """Whether its operator or annotation says that a kernel sends or receives."""
        said = self.params.get(kernel.external_id, kernel.label).collective
        return said in SIDES or bool(ANNOTATION.match(self.annotation(kernel).name))

    def posted(self, kernel: P2PKernel) -> float | None:
        """When the host posted a kernel, us: its launch call, else the beginning of the c10d
        operator or annotation with its id; None where the trace has none of these."""
        if kernel.correlation in self.calls:
            return self.calls[kernel.correlation]
        for origin in (kernel.external_id, self.annotation(kernel).external_id):
            begun = self.operators.get(origin)
            if begun is not None and begun <= kernel.ts:
                return begun
        return None

    def batches(self, kernels: list[P2PKernel]) -> list[list[Asked]]:
        """What each kernel sends and receives as one of a batch_isend_irecv, in the order asked
        for; nothing where it is none.

        Nothing too where a batch is several kernels: which of them an operation is in is not known.
        """
        marks = [self._host_mark(kernel) for kernel in kernels]
        uses = Counter(marks)
        if set(uses) <= {NO_MARK}:
            return [[] for _ in kernels]
        of_mark = self._batches_by_mark({kernel.external_id for kernel in kernels})
        return [of_mark.get(mark, []) if uses[mark] == 1 else [] for mark in marks]

    def _host_mark(self, kernel: P2PKernel) -> Mark:
        """The host's annotation in which a batch's kernel was launched."""
        found = self.annotation(kernel)
        if found.name == COALESCED and kernel.correlation in self.calls:
            return _around(self.host, self.calls[kernel.correlation])
        return NO_MARK

    def _batches_by_mark(self, alone: set[int]) -> dict[Mark, list[Asked]]:
        """What was asked for before each annotation of a batch: on its thread and in one process
        group, since the one before, and launched by nothing else (`alone`: by a kernel of its own).

        Nothing where something was launched in between: the annotation of an earlier batch may be
        missing, of which some of it was.
        """
        launches = sorted([*self.calls.values(), *self.graphs])
        found: dict[Mark, list[Asked]] = {}
        waiting: dict[Value, list[Asked]] = {}
        coalesced = [mark for mark in self.host if mark.name == COALESCED]
        each_alone = [mark.ts for mark in self.host if ANNOTATION.match(mark.name)]
        at = 0
        asked = sorted(self.asked, key=lambda one: one.ts)
        for mark in coalesced:
            while at < len(asked) and asked[at].ts < mark.ts:
                one = asked[at]
                at += 1
                own = bisect_left(each_alone, one.ts)
                before = waiting.setdefault(one.thread, [])
                launched = own < len(each_alone) and each_alone[own] <= one.end
                if one.external_id in alone or launched:
                    before.clear()
                    continue
                if before and before[-1].label.group != one.label.group:
                    before.clear()
                before.append(one)
            batch = waiting.pop(mark.thread, [])
            since = bisect_right(launches, batch[0].ts) if batch else 0
            found[mark] = batch if since == bisect_right(launches, mark.ts) else []
        return found


def _around(marks: list[Mark], moment: float) -> Mark:
    at = bisect_right(marks, moment, key=lambda mark: mark.ts) - 1
    return marks[at] if at >= 0 and marks[at].end >= moment else NO_MARK


def label_kernels(
    kernels: list[P2PKernel], site: LaunchSite, who: Identity, ns: Callable[[float], int]
) -> tuple[list[P2POp], int]:
    """P2P kernels as operations, and how many carry no sign of their peer.

    Kernels inside graphs carry none: they are counted, never guessed. A kernel of a
    batch_isend_irecv is as many operations as were asked for in it.
    """
    found: list[P2POp] = []
    unlabelled = batch = 0
    for kernel, asked in zip(kernels, site.batches(kernels), strict=True):
        if in_batch := _batch(kernel, asked, site, ns, batch + 1):
            found += in_batch
            batch += 1
            continue
        label, peer = kernel.label, _peer(kernel.label)
        if peer is None:
            label = site.params.get(kernel.external_id, label)
            peer = _peer(label)
        if peer is None:
            label = _from_annotation(site.annotation(kernel).name, who)
            peer = _peer(label)
        if peer is None:
            unlabelled += 1
            continue
        found.append(_operation(kernel, label, peer, site.posted(kernel), ns))
    return found, unlabelled


def _batch(
    kernel: P2PKernel, asked: list[Asked], site: LaunchSite, ns: Callable[[float], int], batch: int
) -> list[P2POp]:
    """The operations of a batch's kernel; none where one of them does not say who its peer is."""
    found = []
    for one in asked:
        peer = _peer(one.label)
        if peer is None:
            return []
        operation = _operation(kernel, one.label, peer, site.posted(kernel), ns)
        operation.batch, operation.called_ns = batch, ns(one.ts)
        found.append(operation)
    return found


def _operation(
    kernel: P2PKernel, label: Label, peer: int, posted: float | None, ns: Callable[[float], int]
) -> P2POp:
    """A kernel as an operation with a peer; `posted`: when the host launched it."""
    return P2POp(
        "send" if label.collective == "send" else "recv",
        peer,
        number(label.elements),
        label.dtype if isinstance(label.dtype, str) else None,
        ns(kernel.ts),
        ns(kernel.ts + kernel.dur),
        "nccl",
        None if posted is None else ns(posted),
        str(label.group or ""),
        (kernel.pid, kernel.stream),
    )


def _peer(label: Label) -> int | None:
    """The rank that a send goes to or a recv comes from, None where the label says none."""
    if label.collective not in SIDES:
        return None
    return number(label.dst if label.collective == "send" else label.src)


def _from_annotation(name: str, who: Identity) -> Label:
    """`nccl:send a->b` numbers ranks in their group: a PP group where `a` is our PP rank."""
    match = ANNOTATION.match(name)
    if not match:
        return Label()
    own, other = int(match[2]), int(match[3])
    if own == who.pp:
        other = other * who.tp_size + who.tp
    elif own != who.rank:
        return Label()
    return Label(match[1], src=other, dst=other)

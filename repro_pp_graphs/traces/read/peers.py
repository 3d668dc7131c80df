"""Who an NCCL P2P kernel talks to: its arguments, else the operator or annotation it came from."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from repro_pp_graphs.traces.model import P2POp
from repro_pp_graphs.traces.read.blocks import Value, number
from repro_pp_graphs.traces.read.identity import Identity

ANNOTATION = re.compile(r"nccl:(send|recv) (\d{1,9})(?:->|<-)(\d{1,9})")
# Kineto widens an annotation on the GPU by a ns on either side; us.
SLACK_US = 0.01
SIDES = ("send", "recv")


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


NO_MARK = Mark(0.0, 0.0, "", -1)


@dataclass(slots=True)
class LaunchSite:
    """Where kernels came from: c10d operators by id (what they say, when they begin), annotations
    on host and GPU, launch calls by correlation."""

    params: dict[int, Label] = field(default_factory=dict)
    operators: dict[int, float] = field(default_factory=dict)
    host: list[Mark] = field(default_factory=list)
    gpu: dict[Value, list[Mark]] = field(default_factory=dict)
    calls: dict[int, float] = field(default_factory=dict)

    def sort(self) -> None:
        """Put annotations in order; to be called before `annotation` and `posted`."""
        for marks in (self.host, *self.gpu.values()):
            marks.sort()
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


def _around(marks: list[Mark], moment: float) -> Mark:
    at = bisect_right(marks, moment, key=lambda mark: mark.ts) - 1
    return marks[at] if at >= 0 and marks[at].end >= moment else NO_MARK


def label_kernels(
    kernels: list[P2PKernel], site: LaunchSite, who: Identity, ns: Callable[[float], int]
) -> tuple[list[P2POp], int]:
    """P2P kernels as operations, and how many carry no sign of their peer.

    Kernels inside graphs and of batch_isend_irecv carry none: they are counted, never guessed.
    """
    found: list[P2POp] = []
    unlabelled = 0
    for kernel in kernels:
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
        posted = site.posted(kernel)
        found.append(
            P2POp(
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
        )
    return found, unlabelled


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

"""The events of a trace sorted into columns."""

from __future__ import annotations

from array import array
from sys import intern

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.cuda_calls import BLOCKED_US, call_kind, synchronises
from repro_pp_graphs.traces.read.blocks import Value, plain
from repro_pp_graphs.traces.read.event import (
    NO_ARGS,
    Args,
    Event,
    label_of,
    mark_of,
    shape_of,
    whole,
)
from repro_pp_graphs.traces.read.peers import SIDES, Asked, LaunchSite, P2PKernel

# Of the launches, as many as the runtime's own where the driver's are not recorded.
DRIVERS_SHARE = 0.5
GPU_WORK = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
CUDA_CALLS = frozenset({"cuda_runtime", "cuda_driver"})
STREAM_BITS = 20
GPU_COLUMNS = 4
OPERATORS = frozenset({"record_param_comms", "c10d::send", "c10d::recv_"})


# send or recv, ts, dur, pid and tid, elements and dtype.
GlooOp = tuple[str, float, float, tuple[Value, Value], tuple[int | None, str | None]]


# Names of calls that do none of this, as far as they have come up.
QUIET: set[Value] = set()


def _p2p_kernel(event: Event, args: Args, correlation: int) -> P2PKernel:
    external_id = whole(args.external_id)
    lane = plain(event.pid), plain(event.tid)
    return P2PKernel(event.ts, event.dur, *lane, correlation, external_id, label_of(args))


def _column_number(value: float) -> float:
    """A number, in the place of an integer beyond all that a column holds another one."""
    try:
        return float(value)
    except OverflowError:
        return float(2 * (hash(value) >> STREAM_BITS) + value % 2)


class Columns:
    """Columns filled block by block; times stay in us until the base time is known.

    `gpu` has four numbers for each piece of GPU work: ts, dur, correlation, and one for its device
    and stream: an odd one for a copy or set;
    `operators` start and end of every outermost operator, in turn, by thread.
    """

    def __init__(self) -> None:
        self.gpu = array("d")
        self.p2p: list[P2PKernel] = []
        self.generic: list[P2PKernel] = []
        self.annotations: list[tuple[Value, tuple[str, float, float, int]]] = []
        self.gloo: list[GlooOp] = []
        self.launches: list[tuple[float, float, int]] = []
        self.calls: list[tuple[Value, tuple[str, float, float, int]]] = []
        self.syncs: list[tuple[Value, tuple[str, float, float, int]]] = []
        self.uploads: dict[int, int] = {}
        self.sends: list[tuple[str, float, float, int]] = []
        self.recvs: list[tuple[str, float, float, int]] = []
        self.operators: dict[Value, array[float]] = {}
        self.count = 0
        self.driver_calls = 0
        self._site = LaunchSite()
        # Correlation and ts of every call that launches or copies: a dictionary would take five
        # times as much.
        self.posted = array("d")

    def take(self, events: list[Event]) -> None:
        """Sort events into columns; the branches that most events take do no call."""
        self.count += len(events)
        last_tid: Value = None
        edges = array("d")
        begin = reach = 0.0  # of the operator that is outermost so far
        on_gpu: list[Event] = []
        for event in events:
            if event.ph != "X":
                continue
            cat = event.cat
            if cat == "cpu_op":
                if event.tid != last_tid:
                    last_tid = event.tid
                    edges = self.operators.setdefault(plain(last_tid), array("d"))
                    begin, reach = edges[-2:] or (0.0, 0.0)
                if event.ts >= reach or event.ts < begin:
                    begin, reach = event.ts, event.ts + event.dur
                    edges.append(begin)
                    edges.append(reach)
                if event.name in OPERATORS:
                    self._operator(event)
            elif cat == "kernel":
                on_gpu.append(event)
            elif cat in CUDA_CALLS:
                if event.name not in QUIET or event.dur >= BLOCKED_US:
                    self._cuda_call(event)
            elif cat in GPU_WORK:
                on_gpu.append(event)
            elif cat == "user_annotation":
                self._annotation(event)
            elif cat == "gpu_user_annotation":
                self._mark(event)
        self._gpu_work(on_gpu)

    def launch_site(self) -> LaunchSite:
        """Where the P2P kernels came from; to be asked for when all events are taken.

        Kernels whose name does not say what they do (RCCL: ncclDevKernel_Generic) are sorted by
        what launched them.
        """
        wanted = {float(kernel.correlation) for kernel in (*self.p2p, *self.generic)}
        times = zip(self.posted[::2], self.posted[1::2], strict=True)
        self._site.calls = {int(corr): ts for corr, ts in times if corr in wanted}
        self._site.graphs = [ts for ts, _, _ in self.launches]
        self._site.sort()
        in_batches = self._site.batches([*self.generic, *self.p2p]) if self.generic else []
        for kernel, asked in zip(self.generic, in_batches, strict=False):
            if asked or self._site.is_p2p(kernel):
                self.p2p.append(kernel)
            else:
                place = hash((kernel.pid, kernel.stream)) >> STREAM_BITS
                self.gpu.extend((kernel.ts, kernel.dur, kernel.correlation, 2 * place))
        self.generic.clear()
        return self._site

    def gpu_number(self) -> str:
        """The number of the GPU that the rank's work ran on; empty where there are several or none.

        NCCL's kernels run on the rank's own; without any, that of all its work.
        """
        numbers = {str(kernel.pid) for kernel in self.p2p}
        if not numbers:
            streams = np.unique(np.array(self.gpu[3::GPU_COLUMNS]) // 2)
            numbers = {str(int(stream) >> STREAM_BITS) for stream in streams}
        return numbers.pop() if len(numbers) == 1 else ""

    def launched_share(self) -> float | None:
        """The share of kernels, or of copies if less, whose calls were recorded; None without any.

        Kernels of one graph launch count once. Where the driver's calls were not recorded at all,
        as older profilers do, up to half of the launches may have been theirs: then 1 from there.
        """
        rows = np.array(self.gpu).reshape(-1, GPU_COLUMNS)
        is_copy = rows[:, 3] % 2 != 0
        posted = np.unique(np.array([-1.0, *self.posted[::2]]))

        def seen(correlations: npt.NDArray[np.float64]) -> float:
            ids = np.unique(correlations)
            return float((posted[posted.searchsorted(ids, side="right") - 1] == ids).mean())

        if is_copy.all():
            return None
        kernels = seen(rows[~is_copy, 2])
        kernels = 1.0 if kernels >= DRIVERS_SHARE and not self.driver_calls else kernels
        return min([kernels, *([seen(np.array(list(self.uploads)))] if self.uploads else [])])

    def _operator(self, event: Event) -> None:
        if event.name == "c10d::send":
            self.sends.append(("c10d::send", event.ts, event.dur, -1))
        elif event.name == "c10d::recv_":
            self.recvs.append(("c10d::recv_", event.ts, event.dur, -1))
        elif event.args and event.args.collective in SIDES:
            origin, label = whole(event.args.external_id), label_of(event.args)
            thread, over = plain(event.tid), event.ts + event.dur
            self._site.asked.append(Asked(event.ts, over, origin, thread, label))
            if origin >= 0:
                self._site.params[origin] = label
                self._site.operators[origin] = event.ts

    def _gpu_work(self, events: list[Event]) -> None:
        """Rows of `gpu`; P2P kernels have lists of their own."""
        rows: list[float] = []
        for event in events:
            args, name = event.args or NO_ARGS, event.name
            correlation = args.correlation
            if type(correlation) is not int:
                correlation = whole(correlation)
            is_copy = event.cat != "kernel"
            if is_copy:
                if event.cat == "gpu_memcpy" and "Pageable -> Device" in str(name):
                    self.uploads[correlation] = whole(args.nbytes)
            elif type(name) is str and name.startswith("nccl"):
                if "SendRecv" in name or args.collective in SIDES:
                    self.p2p.append(_p2p_kernel(event, args, correlation))
                    continue
                if "Generic" in name and args.collective is None:
                    self.generic.append(_p2p_kernel(event, args, correlation))
                    continue
            try:
                stream = (event.pid << STREAM_BITS) + event.tid  # type: ignore[operator]
            except TypeError:  # no numbers
                stream = hash((event.pid, event.tid)) >> STREAM_BITS
                correlation = whole(correlation)
            rows += event.ts, event.dur, correlation, 2 * stream + is_copy
        try:
            self.gpu.fromlist(rows)
        except OverflowError:  # numbers that no column holds
            self.gpu.fromlist(list(map(_column_number, rows)))

    def _cuda_call(self, event: Event) -> None:
        name = str(event.name)
        correlation = whole((event.args or NO_ARGS).correlation)
        kind = call_kind(name)
        self.driver_calls += event.cat == "cuda_driver"
        waits = synchronises(name)
        if kind:
            self.posted.extend((correlation, event.ts))
        elif not waits:
            QUIET.add(event.name)
        if kind == "graph":
            self.launches.append((event.ts, event.dur, correlation))
        if event.dur >= BLOCKED_US or kind == "copy":
            tid = event.tid if type(event.tid) is int else plain(event.tid)
            self.calls.append((tid, (intern(name), event.ts, event.dur, correlation)))
        elif waits and event.dur >= 0:
            tid = event.tid if type(event.tid) is int else plain(event.tid)
            self.syncs.append((tid, (intern(name), event.ts, event.dur, correlation)))

    def _mark(self, event: Event) -> None:
        if str(event.name).startswith("nccl:"):
            self._site.gpu.setdefault(plain(event.tid), []).append(mark_of(event))

    def _annotation(self, event: Event) -> None:
        name = str(event.name)
        if name.startswith("nccl:"):
            self._site.host.append(mark_of(event))
        elif name in ("gloo:send", "gloo:recv"):
            args = event.args or NO_ARGS
            shape = shape_of(bytes(args.dims), bytes(args.types))
            lane = plain(event.pid), plain(event.tid)
            self.gloo.append((name[5:], event.ts, event.dur, lane, shape))
        else:
            tid = event.tid if type(event.tid) is int else plain(event.tid)
            self.annotations.append((tid, (intern(name), event.ts, event.dur, -1)))

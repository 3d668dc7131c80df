"""A ring of PP ranks simulated event by event, with what everything takes known, and its traces.

Hosts are processes that run sglang's loop: receive, launch, send; a GPU's streams run what is
queued on them one after another; messages wait for both ends. Shares no code with the package: the
traces are events as the torch profiler writes them.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from trace_maker import TraceMaker

COMPUTE, SENDS, RECVS = 21, 45, 46
# What takes the same in every ring, us.
KERNEL_STARTS, CALL, GLOO, RETURNS = 6.0, 4.0, 30.0, 8.0
GRAPH_STARTS = 0.8  # of the call
BUFFERED_ELEMENTS = 64
HIDDEN, TOKENS, METADATA = 65_536, 8, 147


@dataclass(frozen=True)
class Plan:
    """A ring: times in us, means that vary by `jitter` (a share) from turn to turn.

    `send` and the factors are what a what-if changes: `free_messages` as `send=0`.
    """

    seed: int = 0
    ranks: int = 2
    micro_batches: int = 2
    turns: int = 40
    blocking: bool = True
    graphs: bool = True
    compute_us: tuple[float, ...] = (3000.0, 3000.0)
    kernels: int = 12
    launch_us: float = 100.0  # the host's time between two kernels, or of a graph's launch
    host_us: float = 300.0  # what the host does in a turn outside of messages and launches
    message_us: float = 60.0  # the host's own time in a message
    transfer_us: float = 40.0
    jitter: float = 0.1
    ahead_us: tuple[float, ...] = ()
    compute: float = 1.0
    launch: float = 1.0
    transfer: float = 1.0
    host: float = 1.0
    free_messages: bool = False


NCCL = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"


def chance_of(key: str) -> float:
    """A number from -1 to 1 by a key: no state, and cheaper than a generator for each."""
    return zlib.crc32(key.encode()) / 2**31 - 1


class Event:
    """Something that happens once; processes may wait for it."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.waiting: list[Callable[[], None]] = []


Process = Generator[float | Event, None, None]


class Clock:
    """Runs processes: generators that yield what they wait for, a time in us or an Event."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.number = 0

    def later(self, delay: float, call: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.queue, (self.now + delay, self.number, call))

    def happens(self, event: Event) -> None:
        event.at = self.now
        for call in event.waiting:
            self.later(0, call)

    def start(self, process: Process) -> None:
        def go() -> None:
            for wanted in process:
                if isinstance(wanted, Event):
                    if wanted.at is None:
                        wanted.waiting.append(go)
                        return
                elif wanted > 0:
                    self.later(wanted, go)
                    return

        self.later(0, go)

    def run(self) -> None:
        while self.queue:
            self.now, _, call = heapq.heappop(self.queue)
            call()


class Stream:
    """A stream of a GPU: work runs in the order in which it was queued."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tail: Event | None = None

    def add(self, run: Callable[[], Process], after: list[Event]) -> Event:
        """Queue work that starts after what is queued and these events; its end."""
        done, before = Event(), self.tail

        def process() -> Process:
            yield from ([before] if before else []) + after
            yield from run()
            self.clock.happens(done)

        self.clock.start(process())
        self.tail = done
        return done


class Unrecorded(TraceMaker):
    """A profiler that is off: for rings of which the times alone are wanted."""

    def add(self, cat: str, name: str, ts: float, dur: float, **more: object) -> int:
        self.last_id += 1
        return self.last_id


class Rank:
    """One rank: its host's program, its streams, and the trace that it leaves."""

    def __init__(self, ring: Ring, number: int) -> None:
        plan = ring.plan
        self.ring, self.number, self.plan, self.clock = ring, number, plan, ring.clock
        self.streams = {name: Stream(ring.clock) for name in (COMPUTE, SENDS, RECVS)}
        profiler = TraceMaker if ring.recorded else Unrecorded
        self.maker = profiler(number, plan.ranks, pid=500 + number)
        if plan.ahead_us:
            self.maker.base_ns += round(plan.ahead_us[number] * 1000)
            self.maker.header["hostName"] = f"node{number}"
        self.turn = 0
        self.last_kernel = Event()
        self.launched: list[float] = []  # PP0's: the begin of each batch's launch
        self.computed: list[Event] = []  # the end of each batch's kernels
        self.counts: dict[str, int] = {}

    @property
    def last(self) -> bool:
        return self.number == self.plan.ranks - 1

    def vary(self, what: str, mean: float) -> float:
        """A time that is the same whenever the ring of this seed is run again."""
        key = f"{self.plan.seed} {self.number} {self.turn} {what}"
        self.counts[key] = self.counts.get(key, 0) + 1
        return mean * (1 + self.plan.jitter * chance_of(f"{key} {self.counts[key]}"))

    def program(self) -> Process:
        plan, first = self.plan, self.number == 0
        m, p = plan.micro_batches, plan.ranks
        outstanding: set[int] = set()
        for turn in range(plan.turns):
            for slot in range(p):
                self.turn = turn
                yield from self.work("requests", 0.3)
                arrived: list[Event] = []
                if slot < m:
                    if not first:
                        arrived = yield from self.receive("hidden")
                    yield from self.batch(arrived)
                    outstanding.add(slot)
                following = (slot + 1) % p
                if self.last and slot < m:
                    yield from self.send("tokens", 0)
                if first and following in outstanding:
                    yield from self.receive("tokens")
                    outstanding.discard(following)
                    yield from self.work("results", 0.4)
                if not self.last and slot < m:
                    yield from self.send("hidden", self.number + 1)
                yield from self.work("rest", 0.3)

    def work(self, what: str, share: float) -> Process:
        yield self.vary(what, self.plan.host_us * share) * self.plan.host

    def operator(self, name: str, start: float, end: float) -> None:
        self.maker.add("cpu_op", name, start, end - start)

    def batch(self, arrived: list[Event]) -> Process:
        plan, begin = self.plan, self.clock.now
        self.launched.append(begin)
        compute = self.vary("compute", plan.compute_us[self.number]) * plan.compute
        if plan.graphs:
            corr = self.next_id()
            yield from self.launch_graph(corr, compute, arrived)
        else:
            for part in range(plan.kernels):
                if part:
                    yield self.vary("launch", plan.launch_us) * plan.launch
                yield from self.launch_kernel(compute / plan.kernels, arrived if not part else [])
            self.computed.append(self.last_kernel)
        self.maker.span("run_batch", begin - 1, self.clock.now - begin + 2)
        self.maker.span("step[DECODE bs=8]", begin - 0.5, self.clock.now - begin + 1)

    def next_id(self) -> int:
        self.maker.last_id += 1
        return self.maker.last_id

    def launch_graph(self, corr: int, compute: float, arrived: list[Event]) -> Process:
        call = self.vary("launch", self.plan.launch_us) * self.plan.launch
        posted, ready = self.clock.now, Event()
        self.clock.later(GRAPH_STARTS * call, lambda: self.clock.happens(ready))

        def run() -> Process:
            for _ in range(4):
                start = self.clock.now
                yield compute / 4
                self.maker.kernel("decode", start, self.clock.now - start, corr)

        self.computed.append(self.streams[COMPUTE].add(run, [ready, *arrived]))
        self.maker.call("cudaGraphLaunch", posted, call, corr)
        yield call

    def launch_kernel(self, length: float, arrived: list[Event]) -> Process:
        posted, corr = self.clock.now, self.next_id()
        ready = Event()
        self.clock.later(KERNEL_STARTS * self.plan.launch, lambda: self.clock.happens(ready))

        def run() -> Process:
            start = self.clock.now
            yield length
            self.maker.kernel("gemm", start, self.clock.now - start, corr)

        self.last_kernel = self.streams[COMPUTE].add(run, [ready, *arrived])
        self.maker.call("cudaLaunchKernel", posted, CALL * self.plan.launch, corr)
        self.operator("aten::mm", posted - 0.1, posted + CALL * self.plan.launch)
        yield CALL * self.plan.launch

    def own(self, what: str, share: float) -> float:
        """The host's own time in a message."""
        if self.plan.free_messages:
            return 0.0
        return self.vary(what, self.plan.message_us * share) * self.plan.host

    def send(self, what: str, peer: int) -> Process:
        plan, begin = self.plan, self.clock.now
        name = (
            "send_res_dict_to_next_stage" if what == "tokens" else "send_proxy_dict_to_next_stage"
        )
        yield self.own(f"send {what}", 0.5)
        if plan.blocking:
            yield from self.upload()
            yield from self.gloo_send(peer)
            self.post("send", peer, METADATA, "Byte")
            yield self.own(f"metadata {what}", 0.5)
        else:
            self.gloo_posted(peer)
            yield self.own(f"metadata {what}", 0.5)
        self.post("send", peer, *((TOKENS, "Long") if what == "tokens" else (HIDDEN, "BFloat16")))
        yield self.own(f"tensor {what}", 0.5)
        self.maker.span(name, begin, self.clock.now - begin)

    def upload(self) -> Process:
        """The metadata's copy from pageable memory: the host waits for all that is queued."""
        begin, corr = self.clock.now, self.next_id()
        ready = Event()
        self.clock.later(KERNEL_STARTS, lambda: self.clock.happens(ready))

        def run() -> Process:
            start = self.clock.now
            yield 1.0
            self.maker.add(
                "gpu_memcpy",
                "Memcpy HtoD (Pageable -> Device)",
                start,
                1.0,
                stream=COMPUTE,
                correlation=corr,
                bytes=METADATA,
            )

        done = self.streams[COMPUTE].add(run, [ready])
        self.maker.call("cudaMemcpyAsync", begin + 0.2, CALL, corr)
        if self.plan.free_messages:
            return
        yield CALL + 0.4
        called = self.clock.now
        yield done
        yield RETURNS
        self.maker.call("cudaStreamSynchronize", called, self.clock.now - called, self.next_id())
        self.operator("aten::to", begin, self.clock.now + 0.2)
        yield 0.4

    def gloo_send(self, peer: int) -> Process:
        """The metadata's size: the host waits until the peer has posted its receive."""
        begun, posted = self.ring.gloo(self.number, peer, "send")
        self.clock.happens(begun)
        begin = self.clock.now
        if self.plan.free_messages:
            self.maker.span("gloo:send", begin + 0.2, 0.2)
            self.operator("c10d::send", begin, begin + 0.5)
            yield 1.0
            return
        yield posted
        yield GLOO * self.plan.transfer
        self.operator("c10d::send", begin, begin + 8)
        self.maker.span("gloo:send", begin + 6, self.clock.now - begin - 6)
        yield 1.0

    def gloo_posted(self, peer: int) -> None:
        """The metadata without waiting for the peer."""
        begun, _ = self.ring.gloo(self.number, peer, "send")
        self.clock.happens(begun)
        begin = self.clock.now
        self.operator("c10d::send", begin, begin + 5)
        self.maker.span("gloo:send", begin + 4, 400)

    def post(self, kind: str, peer: int, elements: int, dtype: str) -> Event:
        """Queue an end of an NCCL message on its stream; when it is over."""
        posted, corr, ready = self.clock.now, self.next_id(), Event()
        number, ours, theirs = self.ring.nccl(self.number, peer, kind)
        self.clock.later(KERNEL_STARTS * self.plan.launch, lambda: self.clock.happens(ready))
        lane = SENDS if kind == "send" else RECVS
        compute = self.streams[COMPUTE].tail
        # a send goes after what was launched before it; so does a receive that blocks
        after = [compute] if compute and (kind == "send" or self.plan.blocking) else []

        def run() -> Process:
            begun = self.clock.now
            self.clock.happens(ours)
            if kind == "send" and elements <= BUFFERED_ELEMENTS:
                yield 2.0 * self.plan.transfer
            else:
                yield theirs
                yield self.ring.takes(self.number, peer, kind, number)
            facts = {
                "Collective name": kind,
                "In msg nelems": elements,
                "dtype": dtype,
                "Process Group Name": "11",
                "Dst Rank" if kind == "send" else "Src Rank": peer,
            }
            length = self.clock.now - begun
            self.maker.add("kernel", NCCL, begun, length, stream=lane, correlation=corr, **facts)

        self.maker.call("cuLaunchKernelEx", posted, CALL, corr)
        self.operator("c10d::send" if kind == "send" else "c10d::recv_", posted, posted + 3)
        return self.streams[lane].add(run, [ready, *after])

    def receive(self, what: str) -> Generator[float | Event, None, list[Event]]:
        plan, begin = self.plan, self.clock.now
        peer = (self.number - 1) % plan.ranks
        yield self.own(f"receive {what}", 0.3)
        begun, posted = self.ring.gloo(peer, self.number, "recv")
        self.clock.happens(posted)
        called = self.clock.now
        yield begun
        yield GLOO * plan.transfer
        self.operator("c10d::recv_", called, called + 2)
        self.maker.span("gloo:recv", called + 1, self.clock.now - called - 1)
        yield 0.5
        if plan.blocking:
            metadata = self.post("recv", peer, METADATA, "Byte")
            yield self.own(f"metadata {what}", 0.4) + CALL + 1
            if not plan.free_messages:
                called = self.clock.now
                yield metadata
                yield RETURNS
                length = self.clock.now - called
                self.maker.call("cudaStreamSynchronize", called, length, self.next_id())
        over = self.post(
            "recv", peer, *((TOKENS, "Long") if what == "tokens" else (HIDDEN, "BFloat16"))
        )
        yield self.own(f"tensor {what}", 0.3) + CALL + 1
        if what == "tokens":
            self.maker.span("recv_res_dict_from_prev_stage", begin, self.clock.now - begin)
            yield 1.0
            called = self.clock.now
            yield over
            yield RETURNS
            length = self.clock.now - called
            self.maker.call("cudaEventSynchronize", called, length, self.next_id())
        return [over]


class Ring:
    """All ranks, and what is between them; `recorded`: each leaves a trace."""

    def __init__(self, plan: Plan, recorded: bool = False) -> None:
        self.plan, self.recorded, self.clock = plan, recorded, Clock()
        self.calls: dict[tuple[int, int, str], int] = {}
        self.pairs: dict[tuple[int, int, int], tuple[Event, Event]] = {}
        self.ends: dict[tuple[int, int, int], tuple[Event, Event]] = {}
        self.ranks = [Rank(self, number) for number in range(plan.ranks)]
        for rank in self.ranks:
            self.clock.start(rank.program())
        self.clock.run()

    def gloo(self, src: int, dst: int, side: str) -> tuple[Event, Event]:
        """Of the next message of an edge that a side has not had yet: send begun, recv posted."""
        number = self.calls[src, dst, side] = self.calls.get((src, dst, side), 0) + 1
        return self.pairs.setdefault((src, dst, number), (Event(), Event()))

    def nccl(self, rank: int, peer: int, kind: str) -> tuple[int, Event, Event]:
        """Of the next message that a rank sends or receives: its number, when this end has begun,
        and when the other has."""
        src, dst = (rank, peer) if kind == "send" else (peer, rank)
        number = self.calls[src, dst, kind + " nccl"] = (
            self.calls.get((src, dst, kind + " nccl"), 0) + 1
        )
        sent, received = self.ends.setdefault((src, dst, number), (Event(), Event()))
        return (number, sent, received) if kind == "send" else (number, received, sent)

    def takes(self, rank: int, peer: int, kind: str, number: int) -> float:
        """What the transfer of a message takes, us: the same for both ends."""
        edge = (rank, peer) if kind == "send" else (peer, rank)
        varied = 1 + self.plan.jitter * chance_of(f"{self.plan.seed} {edge} {number}")
        return self.plan.transfer_us * varied * self.plan.transfer


def write(plan: Plan, folder: Path) -> Ring:
    """Run a ring and write its traces into a folder."""
    ring = Ring(plan, recorded=True)
    folder.mkdir(parents=True, exist_ok=True)
    for rank in ring.ranks:
        for event in rank.maker.events:
            if event["pid"] == 0:  # its GPU, which the maker has as the first
                event["pid"] = rank.number
        rank.maker.events.sort(key=lambda event: event["ts"])
        rank.maker.write(folder, f"RING-TP-0-PP-{rank.number}.trace.json")
    return ring


def random_plan(seed: int, clocks: bool = False) -> Plan:
    """A ring of the kinds that there are, by a seed."""
    chance = random.Random(seed)
    ranks = chance.randint(2, 8)
    micro_batches = chance.randint(1, ranks)

    def times(low: float, high: float) -> tuple[float, ...]:
        return tuple(chance.uniform(low, high) for _ in range(ranks))

    return Plan(
        seed=seed,
        ranks=ranks,
        micro_batches=micro_batches,
        turns=max(16, 60 // micro_batches),
        blocking=chance.random() < 0.5,
        graphs=chance.random() < 0.5,
        compute_us=times(800, 4000),
        launch_us=chance.uniform(20, 250),
        host_us=chance.uniform(100, 600),
        message_us=chance.uniform(20, 100),
        transfer_us=chance.uniform(10, 200),
        jitter=chance.uniform(0, 0.2),
        ahead_us=times(-200, 200) if clocks else (),
    )


def steps_us(ring: Ring, steps: list[tuple[int, int]]) -> float:
    """The mean time from one to the other launch on PP0 of pairs of batches."""
    launched = ring.ranks[0].launched
    return sum(launched[after] - launched[before] for before, after in steps) / len(steps)


def steady_us(ring: Ring, first: int, last: int) -> float:
    """The step by the slowest of PP0's launches and each rank's kernels, between two batches."""
    ends = [[event.at or 0.0 for event in rank.computed] for rank in ring.ranks]
    times = [ring.ranks[0].launched, *ends]
    longest = max(each[last] - each[first] for each in times)
    return ring.plan.micro_batches * longest / (last - first)

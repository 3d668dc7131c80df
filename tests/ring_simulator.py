"""A ring of PP ranks simulated event by event, with what everything takes known, and its traces.

Hosts are processes that run sglang's loop: receive, launch, send; a GPU's streams run what is
queued on them one after another; messages wait for both ends. Shares no code with the package: the
traces are events as the torch profiler writes them.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Generator
from pathlib import Path

import msgspec
from ring_plan import Plan, chance_of
from ring_time import Clock, Event, Process, Stream
from trace_maker import TraceMaker

COMPUTE, SENDS, RECVS = 21, 45, 46
# What takes the same in every ring, us.
KERNEL_STARTS, CALL, GLOO, RETURNS = 6.0, 4.0, 30.0, 8.0
BUFFERED_ELEMENTS = 64
METADATA = 147
HOLDS = {"tokens": (8, "Long"), "hidden": (65_536, "BFloat16")}  # elements of a message
NCCL = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"


class Unrecorded(TraceMaker):
    """A profiler that is off: for rings of which the times alone are wanted."""

    def add(self, *_: object, **more: object) -> int:
        self.last_id += 1
        return self.last_id

    span = call = kernel = add


class Rank:
    """One rank: its host's program, its streams, and the trace that it leaves."""

    def __init__(self, ring: Ring, number: int) -> None:
        plan = ring.plan
        self.ring, self.number, self.plan, self.clock = ring, number, plan, ring.clock
        self.streams = {name: Stream(ring.clock) for name in (COMPUTE, SENDS, RECVS)}
        profiler = TraceMaker if ring.recorded else Unrecorded
        self.trace = profiler(number, plan.ranks, pid=500 + number)
        self.off = Unrecorded(number)
        self.maker: TraceMaker = self.off
        """What the events go to that begin on the host now, or are launched now."""
        if plan.ahead_us:
            self.trace.base_ns += round(plan.ahead_us[number] * 1000)
            self.trace.header["host_name"] = f"node{number}"
        self.last = number == plan.ranks - 1
        self.turn = 0
        # of the batches of recorded turns
        self.launched: list[float] = []  # PP0's: the begin of each batch's launch
        self.computed: list[Event] = []  # the end of each batch's kernels
        self.to_send: deque[Event] = deque()  # the last rank's: batches whose tokens are not sent
        self.counts: dict[str, int] = {}  # of a turn's times by what they are
        self.key = zlib.crc32(f"{plan.seed} {number} ".encode())

    @property
    def is_recorded(self) -> bool:
        return self.turn >= self.plan.warm_up

    def begin(self, turn: int) -> None:
        self.turn = turn
        self.counts.clear()
        self.maker = self.trace if self.is_recorded else self.off

    def vary(self, what: str, mean: float) -> float:
        """A time that is the same whenever the ring of this seed is run again."""
        count = self.counts[what] = self.counts.get(what, 0) + 1
        return mean * (1 + self.plan.jitter * chance_of(f"{self.turn} {what} {count}", self.key))

    def program(self) -> Process:
        plan, first = self.plan, self.number == 0
        slots = plan.ranks + plan.depth
        for turn in range(plan.warm_up + plan.turns):
            self.begin(turn)
            for slot in range(slots):
                runs = slot < plan.micro_batches
                yield from self.work("requests", 0.3)
                arrived: list[Event] = []
                if runs and not first:
                    arrived = [(yield from self.receive("hidden"))]
                results = None
                if plan.depth:
                    results = yield from self.tokens(turn, slot, slots)
                if runs:
                    yield from self.batch(arrived)
                if not plan.depth:
                    results = yield from self.tokens(turn, slot, slots)
                if results:
                    yield from self.wait("cudaEventSynchronize", results)
                    yield from self.work("results", 0.4)
                if not self.last and runs:
                    yield from self.send("hidden", self.number + 1)
                yield from self.work("rest", 0.3)

    def tokens(
        self, turn: int, slot: int, slots: int
    ) -> Generator[float | Event, None, Event | None]:
        """The last rank sends the tokens of the batch that it launched first of those not sent; PP0
        receives those of the next slot's, which it launches after this one's."""
        following = (slot + (self.plan.ranks if self.last else 1)) % slots
        if following >= self.plan.micro_batches or (turn == 0 and following > slot):
            return None  # nothing is launched there
        if self.last:
            yield from self.send("tokens", 0)
        if self.number == 0:
            return (yield from self.receive("tokens"))
        return None

    def work(self, what: str, share: float) -> Process:
        yield self.vary(what, self.plan.host_us * share) * self.plan.host

    def operator(self, name: str, start: float, end: float) -> None:
        self.maker.add("cpu_op", name, start, end - start)

    def batch(self, arrived: list[Event]) -> Process:
        plan, begin = self.plan, self.clock.now
        compute = self.vary("compute", plan.compute_us[self.number]) * plan.compute
        launch = self.launch_graph if plan.graphs else self.launch_kernels
        done, took = launch(compute, arrived)
        if self.is_recorded:
            self.launched.append(begin)
            self.computed.append(done)
        if self.last:
            self.to_send.append(done)
        yield took
        self.maker.span("run_batch", begin - 1, took + 2)
        self.maker.span("step[DECODE bs=8]", begin - 0.5, took + 1)

    def next_id(self) -> int:
        self.trace.last_id += 1
        return self.trace.last_id

    def happens_at(self, delay: float) -> Event:
        event = Event()
        self.clock.later(delay, lambda: self.clock.happens(event))
        return event

    def launch_graph(self, compute: float, arrived: list[Event]) -> tuple[Event, float]:
        """When it is over, and what the host's call takes, us."""
        call = self.vary("launch", self.plan.launch_us) * self.plan.launch
        maker, corr = self.maker, self.next_id()
        ready = self.happens_at(call + self.plan.graph_starts_us * self.plan.launch)

        def run() -> Process:
            begin = self.clock.now
            for part in range(4):
                maker.kernel("decode", begin + part * compute / 4, compute / 4, corr)
            yield compute

        maker.call("cudaGraphLaunch", self.clock.now, call, corr)
        return self.streams[COMPUTE].add(run, [ready, *arrived]), call

    def launch_kernels(self, compute: float, arrived: list[Event]) -> tuple[Event, float]:
        """The same of kernels one by one: each runs after the one before, and its own launch."""
        plan, maker, begin = self.plan, self.maker, self.clock.now
        call, length = CALL * plan.launch, compute / plan.kernels
        calls: list[tuple[float, int]] = []
        host = begin
        for part in range(plan.kernels):
            if part:
                host += self.vary("launch", plan.launch_us) * plan.launch
            corr = self.next_id()
            maker.call("cudaLaunchKernel", host, call, corr)
            maker.add("cpu_op", "aten::mm", host - 0.1, call + 0.1)
            calls.append((host, corr))
            host += call
        ready = self.happens_at(KERNEL_STARTS * plan.launch)

        def run() -> Process:
            end = self.clock.now
            for posted, corr in calls:
                start = max(end, posted + KERNEL_STARTS * plan.launch)
                maker.kernel("gemm", start, length, corr)
                end = start + length
            yield end - self.clock.now

        return self.streams[COMPUTE].add(run, [ready, *arrived]), host - begin

    def wait(self, call: str, event: Event) -> Process:
        """The host's call that returns when something is over."""
        called = self.clock.now
        yield event
        yield RETURNS
        self.maker.call(call, called, self.clock.now - called, self.next_id())

    def is_free(self, sent: str) -> bool:
        """Whether a send takes the host no time."""
        return self.plan.free_messages or (self.plan.free_token_send and sent == "tokens")

    def own(self, what: str, share: float, *, free: bool = False) -> float:
        """The host's own time in a message."""
        if self.plan.free_messages or free:
            return 0.0
        return self.vary(what, self.plan.message_us * share) * self.plan.host

    def send(self, what: str, peer: int) -> Process:
        plan, begin = self.plan, self.clock.now
        name = (
            "send_res_dict_to_next_stage" if what == "tokens" else "send_proxy_dict_to_next_stage"
        )
        free = self.is_free(what)
        yield self.own(f"send {what}", 0.5, free=free)
        if plan.blocking:
            yield from self.upload(free)
            yield from self.gloo_send(peer, free)
            self.post("send", peer, METADATA, "Byte")
            yield self.own(f"metadata {what}", 0.5, free=free)
        else:
            self.gloo_posted(peer)
            yield self.own(f"metadata {what}", 0.5, free=free)
        computed = self.to_send.popleft() if what == "tokens" else None
        self.post("send", peer, *HOLDS[what], computed)
        yield self.own(f"tensor {what}", 0.5, free=free)
        self.maker.span(name, begin, self.clock.now - begin)

    def upload(self, free: bool) -> Process:
        """The metadata's copy from pageable memory: the host waits for all that is queued."""
        begin, maker, corr = self.clock.now, self.maker, self.next_id()
        ready = self.happens_at(KERNEL_STARTS * self.plan.launch)

        def run() -> Process:
            name, facts = "Memcpy HtoD (Pageable -> Device)", {"bytes": METADATA}
            maker.add(
                "gpu_memcpy", name, self.clock.now, 1.0, stream=COMPUTE, correlation=corr, **facts
            )
            yield 1.0

        done = self.streams[COMPUTE].add(run, [ready])
        maker.call("cudaMemcpyAsync", begin + 0.2, CALL, corr)
        if free:
            return
        yield CALL + 0.4
        yield from self.wait("cudaStreamSynchronize", done)
        self.operator("aten::to", begin, self.clock.now + 0.2)
        yield 0.4

    def gloo_send(self, peer: int, free: bool) -> Process:
        """The metadata's size: the host waits until the peer has posted its receive."""
        begun, posted = self.ring.gloo(self.number, peer, "send")
        self.clock.happens(begun)
        begin = self.clock.now
        if free:
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

    def post(
        self, kind: str, peer: int, elements: int, dtype: str, after: Event | None = None
    ) -> Event:
        """Queue an end of an NCCL message on its stream; when it is over.

        A send goes after `after`, or else what was launched before it; so does a receive that
        blocks.
        """
        posted, maker, corr = self.clock.now, self.maker, self.next_id()
        number, ours, theirs = self.ring.nccl(self.number, peer, kind)
        ready = self.happens_at(KERNEL_STARTS * self.plan.launch)
        lane = SENDS if kind == "send" else RECVS
        if not after and (kind == "send" or self.plan.blocking):
            after = self.streams[COMPUTE].tail

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
            maker.add("kernel", NCCL, begun, length, stream=lane, correlation=corr, **facts)

        maker.call("cuLaunchKernelEx", posted, CALL, corr)
        self.operator("c10d::send" if kind == "send" else "c10d::recv_", posted, posted + 3)
        return self.streams[lane].add(run, [ready, *([after] if after else [])])

    def receive(self, what: str) -> Generator[float | Event, None, Event]:
        """When what is received has arrived."""
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
                yield from self.wait("cudaStreamSynchronize", metadata)
        over = self.post("recv", peer, *HOLDS[what])
        yield self.own(f"tensor {what}", 0.3) + CALL + 1
        if what == "tokens":
            self.maker.span("recv_res_dict_from_prev_stage", begin, self.clock.now - begin)
            yield 1.0
        return over


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
        for event in rank.trace.events:
            if event["pid"] == 0:  # its GPU, which the maker has as the first
                event["pid"] = rank.number
        rank.trace.events.sort(key=lambda event: event["ts"])
        document = rank.trace.document()
        lines = b",\n  ".join(map(msgspec.json.encode, document.pop("traceEvents")))
        head = msgspec.json.encode(document)[:-1]
        name = f"RING-TP-0-PP-{rank.number}.trace.json"
        (folder / name).write_bytes(head + b',"traceEvents":[\n  ' + lines + b"\n  ]}\n")
    return ring


def steps_us(ring: Ring, steps: list[tuple[int, int]]) -> float:
    """The mean time from one to the other launch on PP0 of pairs of batches, numbered from the
    first recorded one on."""
    launched = ring.ranks[0].launched
    return sum(launched[after] - launched[before] for before, after in steps) / len(steps)


def steady_us(ring: Ring, first: int, last: int) -> float:
    """The step by the slowest of PP0's launches and each rank's kernels, between two batches."""
    ends = [[event.at or 0.0 for event in rank.computed] for rank in ring.ranks]
    times = [ring.ranks[0].launched, *ends]
    longest = max(each[last] - each[first] for each in times)
    return ring.plan.micro_batches * longest / (last - first)

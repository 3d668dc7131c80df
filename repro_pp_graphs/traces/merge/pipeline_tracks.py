"""What the merged trace has beyond the ranks' own events.

A process per rank ("PP0 · pipeline") with the decode steps, the graphs' kernels, waits for a peer
and transfers, and a bubble counter; and an arrow from every paired send to its recv.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from repro_pp_graphs.traces.explain.step_path import TITLES
from repro_pp_graphs.traces.explain.steps import decode_spans, gpu_work, window
from repro_pp_graphs.traces.merge.bubble import bubbles
from repro_pp_graphs.traces.merge.chrome_trace import Placed
from repro_pp_graphs.traces.merge.track import Event, Track
from repro_pp_graphs.traces.merge.track_names import Lanes, rank_name
from repro_pp_graphs.traces.pair.clock_bounds import Bounds, between, bounds
from repro_pp_graphs.traces.pair.edge import Edge, sent_ns
from repro_pp_graphs.traces.pair.host_clocks import same_host
from repro_pp_graphs.traces.path.clock_leads import CannotTell
from repro_pp_graphs.traces.path.path_slices import Slice, path_slices
from repro_pp_graphs.traces.path.whole_analysis import Studied, studied
from repro_pp_graphs.traces.rank_trace import Case, P2POp

# How long before the end of its slice an arrow of the path starts.
INSIDE_NS = 1_000
STEPS, GRAPHS, PATH = "decode steps", "decode cudagraph", "critical path"


def decode_start(case: Case) -> int:
    """When the first decode step starts that every rank recorded (0: there is none), ns."""
    start, _ = window(case)
    first = min((rank.pp, rank.tp) for rank in case.ranks)
    spans = [
        span.start_ns
        for rank in case.ranks
        if (rank.pp, rank.tp) == first
        for span in decode_spans(rank)
    ]
    return min((moment for moment in spans if moment >= start), default=min(spans, default=0))


def shifts(cases: list[Case]) -> list[int]:
    """What to add to each case's times, ns, so that the decode starts of all coincide."""
    starts = [decode_start(case) for case in cases]
    return [starts[0] - start if start and starts[0] else 0 for start in starts]


class Additions:
    """Makes the added events of all cases: `slices` first, and what needs to know where the ranks'
    own events went, `arrows`, last. `cases`: as read, or as studied already."""

    def __init__(self, cases: Sequence[Case | Studied]) -> None:
        self.cases = cases
        self.tracks: list[Track] = []
        self.messages: list[tuple[Track, P2POp, Track, P2POp, str]] = []
        self.hops: list[tuple[Track, int, Track, int]] = []

    def slices(self, placed: list[Placed]) -> Iterator[Event]:
        """Steps, bubbles, waits and transfers of the ranks."""
        self.tracks = [Track(each) for each in placed]
        for at, case in enumerate(self.cases):
            mine = {
                track.placed.rank.rank: track for track in self.tracks if track.placed.case == at
            }
            for track in mine.values():
                yield from _steps(track)
            study = studied(case) if isinstance(case, Case) else case
            of = {host.rank.rank: host for host in study.hosts}
            for number, track in mine.items():
                yield from bubbles(track, of[number], study.case)
            if not isinstance(study.followed, CannotTell):
                yield from self._path(mine, path_slices(study.followed))
            most = bounds(study.edges, [*mine], same_host(study.case))
            for edge in study.edges:
                if edge.src_rank not in mine or edge.dst_rank not in mine:
                    continue
                doubt = _clocks(edge, most)
                src, dst = mine[edge.src_rank], mine[edge.dst_rank]
                ends = rank_name(study.case, edge.src_rank), rank_name(study.case, edge.dst_rank)
                for send, recv in edge.paired():
                    self.messages.append((src, send, dst, recv, _recvs(ends[0], recv)))
                    yield from _waits((src, send), (dst, recv), ends, doubt)

    def _path(self, mine: dict[int, Track], path: list[Slice]) -> Iterator[Event]:
        """What decode steps wait for, on a track of each rank; notes where it goes to another."""
        before: Slice | None = None
        for each in path:
            track = mine.get(each.rank)
            if track is None:  # a rank that is not shown
                before = None
                continue
            about = {"what": TITLES[each.name]}
            yield track.slice(PATH, each.name, each.start_ns, each.end_ns, about)
            if before is not None and before.rank != each.rank:
                # well inside, as times read as floats are some ns off
                inside = min(INSIDE_NS, (before.end_ns - before.start_ns + 1) // 2)
                left = before.end_ns - inside
                self.hops.append((mine[before.rank], left, track, each.start_ns))
            before = each

    def arrows(self, lanes: list[Lanes]) -> Iterator[Event]:
        """From sends to recvs, by the lanes of the ranks; names of the added tracks."""
        of = {track.pid: lane for track, lane in zip(self.tracks, lanes, strict=True)}
        for number, (src, send, dst, recv, by) in enumerate(self.messages, start=1):
            yield from _arrow(number, (src, of[src.pid], send), (dst, of[dst.pid], recv), by)
        numbers = count(len(self.messages) + 1)
        for number, (src, left_ns, dst, arrived_ns) in zip(numbers, self.hops, strict=False):
            yield from _hop(number, (src, left_ns), (dst, arrived_ns))
        for track in self.tracks:
            yield from track.metadata()


def _hop(number: int, source: tuple[Track, int], target: tuple[Track, int]) -> Iterator[Event]:
    """A flow of the critical path from one rank's slice to the next one's."""
    (src, left_ns), (dst, arrived_ns) = source, target
    stops = (("s", src, src.us(left_ns)), ("f", dst, dst.us(arrived_ns)))
    if stops[1][2] < stops[0][2]:
        return
    for ph, track, ts in stops:
        flow = {"ph": ph, "cat": "path", "name": PATH, "id": number, "ts": ts}
        lane = {"pid": track.pid, "tid": track.tid(PATH)}
        yield {**flow, **lane} | ({"bp": "e"} if ph == "f" else {})


def _steps(track: Track) -> Iterator[Event]:
    rank = track.placed.rank
    for span in decode_spans(rank):
        yield track.slice(STEPS, span.name, span.start_ns, span.end_ns, {})
    for start, end in gpu_work(rank).extents.tolist():
        yield track.slice(GRAPHS, "cudagraph", start, end, {})


def _clocks(edge: Edge, most: Bounds) -> Event:
    """What is said beside each wait between two hosts: where the receiver's clock can be against
    the sender's, us."""
    if not edge.src or not edge.dst or edge.src.host == edge.dst.host:
        return {}
    at = between(most, edge.src_rank, edge.dst_rank)
    return {"clock_low_us": at.low_us, "clock_high_us": at.high_us}


def _waits(
    source: tuple[Track, P2POp], target: tuple[Track, P2POp], ends: tuple[str, str], clocks: Event
) -> Iterator[Event]:
    """Wait and transfer as slices on both sides; gloo's sends overlap, so only its recvs."""
    (src, send), (dst, recv), (here, there) = source, target, ends
    both, sent = max(send.start_ns, recv.start_ns), sent_ns(send, recv)
    lay_us = max(0, recv.start_ns - sent) / 1000
    about: Event = {
        "from": here,
        "to": there,
        "elements": send.elements,
        "dtype": send.dtype,
        "send_wait_us": max(0, recv.start_ns - send.start_ns) / 1000,
        "recv_wait_us": max(0, send.start_ns - recv.start_ns) / 1000,
        "transfer_us": (max(sent, recv.end_ns) - both) / 1000,
        "buffered_us": lay_us,
        **clocks,
    }
    if send.backend == "nccl":
        track, middle = f"to {there} (NCCL)", min(sent, both)
        if middle > send.start_ns:
            lay = f"buffered {lay_us / 1000:.1f} ms until recv starts"
            name = lay if lay_us else "wait for recv"
            yield src.slice(track, name, send.start_ns, middle, about)
        if sent > middle:
            yield src.slice(track, "transfer", middle, sent, about)
    track, middle = _recvs(here, recv), min(recv.end_ns, both)
    if middle > recv.start_ns:
        yield dst.slice(track, "wait for send", recv.start_ns, middle, about)
    if recv.end_ns > middle:
        yield dst.slice(track, "transfer", middle, recv.end_ns, about)


def _recvs(source: str, recv: P2POp) -> str:
    """The name of the added track with the recvs from a rank."""
    return f"from {source} ({'NCCL' if recv.backend == 'nccl' else recv.backend})"


def _arrow(
    number: int, source: tuple[Track, Lanes, P2POp], target: tuple[Track, Lanes, P2POp], by: str
) -> Iterator[Event]:
    """A flow from the send's slice to the recv's; none where the clocks show it back in time.

    Perfetto draws an arrow from the slice that begins first: to a recv that waited for its send it
    goes by way of the transfer on the added track `by`, which begins no sooner than the send.
    """
    (src, src_lanes, send), (dst, dst_lanes, recv) = source, target
    out = src_lanes.of(send, src.placed.rank.base_ns)
    into = dst_lanes.of(recv, dst.placed.rank.base_ns)
    left, arrived = src.us(send.start_ns), dst.us(recv.end_ns - 1)
    if not out or not into or arrived < left:
        return
    stops = [("s", out, left), ("f", into, arrived)]
    if recv.start_ns < send.start_ns:
        stops.insert(1, ("t", (dst.pid, dst.tid(by)), arrived))
    for ph, (pid, tid), ts in stops:
        name = f"{send.backend} send to recv"
        flow = {"ph": ph, "cat": "p2p", "name": name, "id": number, "pid": pid, "tid": tid}
        yield {**flow, "ts": ts} | ({"bp": "e"} if ph == "f" else {})

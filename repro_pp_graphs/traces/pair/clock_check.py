"""Which pairings hold whatever the ranks' clocks can be, given what lags tell of them."""

from __future__ import annotations

from repro_pp_graphs.traces.pair.clocks import ON_ONE_CLOCK, Apart, Heard, behind, told
from repro_pp_graphs.traces.pair.edge import Channel, Edge, Pairing
from repro_pp_graphs.traces.pair.equal_lags import Witness, witness
from repro_pp_graphs.traces.pair.pairing import best_run, interval, offsets, pair_queues
from repro_pp_graphs.traces.pair.queues import SLACK_NS, Queues, Run

# How far two ranks' clocks may be apart: of two hosts what NTP leaves, of one where nothing says
# that they agree. A message that takes as long is not a prompt one.
HOSTS_APART_NS = 2_000_000
ONE_HOST_APART_NS = 1_000_000
LAGS_NEAR = 16


def allow_for_clocks(edges: list[Edge]) -> None:
    """Pair again what lags say, unpair what another reading of the clocks would pair otherwise."""
    heard: Heard = {}
    for edge in edges:
        if edge.backend == "nccl":  # gloo's operations do not end with the transfer
            rows = [_hear(channel, _free_ns(edge)) for channel in edge.channels]
            if any(rows):
                heard[edge.src_rank, edge.dst_rank] = [row for row in rows if row]
    known, agree, differ = told(heard)
    for edge in edges:
        free = Apart(-_free_ns(edge), _free_ns(edge))
        known_apart = known.get((edge.src_rank, edge.dst_rank))
        host_clock = edge.backend == "gloo" and not differ and edge.one_host is not False
        one_clock = agree if edge.one_host is None else edge.one_host and not differ
        for channel in edge.channels:
            if channel.queues is None or not channel.pairing.pairs:
                continue
            if host_clock:  # times of GPUs are converted to it
                apart = ON_ONE_CLOCK
            elif known_apart is not None:
                apart = known_apart
            else:
                whole = _is_whole(channel.queues, channel.pairing)
                apart = ON_ONE_CLOCK if one_clock and (whole or edge.one_host) else free
            channel.pairing = _settled(channel, channel.queues, apart, free.high_ns)


def _free_ns(edge: Edge) -> int:
    return HOSTS_APART_NS if edge.one_host is False else ONE_HOST_APART_NS


def _hear(channel: Channel, apart_ns: int) -> Witness | None:
    """What the channel's lags tell; where they tell another offset it is paired by that."""
    queues, pairing = channel.queues, channel.pairing
    if queues is None:
        return None
    near = offsets(queues)
    if pairing.offset is not None:
        near = range(pairing.offset - LAGS_NEAR, pairing.offset + LAGS_NEAR + 1)
    heard = witness(queues, pairing.run, near, SLACK_NS["nccl"], apart_ns)
    if heard and heard.sure and heard.offset != pairing.offset:
        moved = pair_queues(queues, heard.lag_ns)
        if moved.offset != heard.offset or abs(heard.lag_ns) > max(apart_ns, interval(queues)):
            return None
        channel.pairing = moved
    channel.witness = heard
    return heard


def _settled(channel: Channel, queues: Queues, apart: Apart, prompt_ns: int) -> Pairing:
    """The channel's pairing where it holds whatever the clocks are, within what is known of them.

    That is: at neither end of the clocks' interval (and so nowhere in between) another offset fits
    at which at least one message is received within `prompt_ns`.
    """
    found = channel.pairing
    if apart.impossible:
        return Pairing(reason="the lags of the edges contradict each other")
    sure = channel.witness is not None and channel.witness.sure
    if channel.witness and sure:
        apart = behind(channel.witness)
        if apart.low_ns > 0:
            # with the receiver's clock ahead, a recv that ends sooner is not that of its send
            soonest_ns = channel.witness.lag_ns - 2 * SLACK_NS["nccl"]
            found.pairs = [
                (i, j) for i, j in found.pairs if queues.r_end[j] - queues.s_start[i] >= soonest_ns
            ]
    elif not apart.low_ns <= found.clock_ns <= apart.high_ns:
        found = pair_queues(queues, apart.low_ns)
    for ahead_ns in apart if apart != ON_ONE_CLOCK else ():
        other, _ = best_run(queues.later_sends(ahead_ns))
        differs = other is not None and other.offset != found.offset
        if other is None or (differs and _promptest_ns(queues, other) - ahead_ns > prompt_ns):
            continue
        if differs and not sure:
            clocks = f"{apart.low_ns / 1000:.0f} to {apart.high_ns / 1000:.0f} us ahead"
            return Pairing(
                reason=f"offsets {found.offset} and {other.offset} both fit: "
                f"the receiver's clock may be {clocks}"
            )
        if not _is_whole(queues, found):
            agreed = set(pair_queues(queues, ahead_ns).pairs)
            found.pairs = [each for each in found.pairs if each in agreed]
    if not found.pairs:
        return Pairing(reason="events are missing, and no pair holds whatever the clocks are")
    return found


def _promptest_ns(queues: Queues, run: Run) -> int:
    """The shortest time in a run from a send's start to its recv's end."""
    recvs = slice(run.first + run.offset, run.last + run.offset)
    return int((queues.r_end[recvs] - queues.s_start[run.first : run.last]).min())


def _is_whole(queues: Queues, pairing: Pairing) -> bool:
    """Whether all that face each other at one offset are pairs: no event is missing."""
    facing, _ = queues.overlap(pairing.offset or 0)
    return pairing.run == (pairing.offset, facing.start, facing.stop)

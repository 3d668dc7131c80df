"""What other parts of the harness take of a launch's clock: a summary, named figures."""

from __future__ import annotations

from repro_pp_graphs.pp_clock.clock_record import ClockFacts, ClockSummary, Rank, RankWaits, Turns
from repro_pp_graphs.pp_clock.rows import WAITS
from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE, OWN_GRAPH, RETURN


def summary(facts: ClockFacts) -> ClockSummary | None:
    """The last rank's measured decode turns; None where there are none, or no token was sent."""
    decode, prefill = facts.last_rank(), facts.last_rank("prefill")
    beside = facts.last_rank("beside_prefill")
    if decode is None or not {"send_tokens", "exchange"} & decode.calls.keys():
        return None
    return ClockSummary(
        turn_ms=decode.turn,
        waits_ms=decode.waits,
        token_send_ms=decode.calls.get("send_tokens"),
        exchange_ms=decode.calls.get("exchange"),
        prefill_exchange_ms=prefill.calls.get("exchange") if prefill else None,
        waits_outside_ms=decode.waits_outside,
        prefill_token_send_ms=prefill.calls.get("send_tokens") if prefill else None,
        distortion=facts.distortion,
        distortion_median=facts.distortion_median,
        beside_prefill_token_send_ms=beside.calls.get("send_tokens") if beside else None,
        calls_ms=decode.calls,
        outside_ms={kind: each.mean for kind, each in decode.outside.items()},
        pp_size=facts.pp_size,
        loop_size=facts.loop_size,
        in_flight=decode.in_flight,
        decode_batches=facts.ranks[facts.last].decode_batches,
        ranks={key: its for key, rank in facts.ranks.items() if (its := _rank_waits(rank))},
    )


def _rank_waits(rank: Rank) -> RankWaits | None:
    """Where a rank waits in a measured decode turn; None where none was timed, or in facts of an
    earlier version, which do not say it."""
    decode = rank.measured.get("decode")
    if decode is None or not decode.parts:
        return None
    outside = {
        kind: round(each.mean * each.count / decode.split, 5)
        for kind, each in decode.outside.items()
    }
    return RankWaits(
        pp_rank=rank.pp_rank,
        turns=decode.turn.count,
        turn_ms=decode.turn.mean,
        waits_ms={kind: ms for kind, ms in decode.parts.items() if kind in WAITS},
        outside_ms=outside if _split(decode) else None,
        own_batch_ms=decode.own_batch.mean if decode.own_batch and _split(decode) else None,
    )


def token_return(facts: ClockFacts, with_receive: bool) -> dict[str, float]:
    """Means of a decode turn by the names of stats/metric_names.py, ms, from the measured pass.

    The token return is the last rank's send; with the receive that follows where that holds the
    wait for the GPU (releases that send over gloo alone: 0.5.3 to 0.5.6), or the batch of all sends
    and receives where they go in one (the shim batched_p2p). Its part outside the rank's own
    batches, from their first kernel to their last, counts as idle: without graphs such a
    batch has gaps in which nothing runs, and these are not in it. Empty without CUDA.
    """
    decode = facts.last_rank()
    kinds = ("send_tokens", "recv_tokens")[: 2 if with_receive else 1]
    if decode is not None and "exchange" in decode.calls:
        kinds = ("exchange",)
    if decode is None or not _split(decode) or any(kind not in decode.calls for kind in kinds):
        return {}
    whole = sum(decode.calls[kind].mean for kind in kinds)
    outside = sum(decode.outside[kind].mean for kind in kinds if kind in decode.outside)
    outside = min(outside, whole)  # of slightly other turns, where no batch ran in a send
    found = {RETURN: whole, OWN_GRAPH: whole - outside, IDLE: outside}
    if decode.waits_outside is not None:
        found[OUTSIDE] = decode.waits_outside.mean
    return {name: round(ms, 5) for name, ms in found.items()}


def _split(decode: Turns) -> bool:
    """Whether (nearly) all turns' waits are split: else the means are of other turns."""
    return decode.split >= 0.9 * decode.turn.count and decode.split > 0

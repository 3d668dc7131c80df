"""The token return in words: how its send behaves, how long that holds the host, and for what."""

from __future__ import annotations

from repro_pp_graphs.traces.analysis_record import (
    Analysis,
    Cause,
    DeliverySplit,
    HostSplit,
    Manner,
    Portion,
    TokenReturn,
)
from repro_pp_graphs.traces.explain.words import (
    WORTH_SAYING,
    clock_doubt_us,
    clocks_do,
    count,
    mean_of,
    ms,
    on_gpu,
    share,
    the_rest,
    time,
)

CANNOT_TELL = "cannot tell"
NO_WAIT = "no wait"
UNSEEN = "something that the trace does not show"
# manner -> what it means, with the releases whose source does so
MEANING: dict[Manner, str] = {
    "on_device": "the send blocks: its metadata is first copied to the GPU (as in sglang 0.5.2 and "
    "with the shim sync_send)",
    "synchronous": "the send waits for gloo only (as in sglang 0.5.3 to 0.5.6): the host waits for "
    "the GPU in a later call",
    "asynchronous": "the send does not hold the host (as from sglang 0.5.7): the token ids leave "
    "when the GPU has computed them",
    "batched": "token ids go in one batch with what is received (batch_isend_irecv): they leave "
    "when the GPU has computed them",
    "unknown": "how the send behaves is not known",
}
WITHOUT_WAIT = (
    "the send's metadata is copied to the GPU, and the host does not wait for that (as with the "
    "shim event_send: pinned memory): it waits for its peer and the transfer only"
)
OF_A_CPU = "traces of a CPU do not tell what of that is waiting"
COPY_UNSEEN = (
    "the send's metadata is sent from the GPU; the copy to it for which the host waits in sglang "
    "0.5.2 is not in the trace"
)


def meaning(facts: Analysis) -> str:
    """What the host does in a trace's token sends, in a sentence without its full stop."""
    returned = facts.token_return
    if facts.sends != "on_device" or returned is None or returned.upload_us:
        return MEANING[facts.sends]
    held, split = returned.host_us, returned.split_us
    if held is None or split is None or not returned.enough:
        return COPY_UNSEEN
    own = (split.blocked_on_own_graph, split.blocked_on_own_compute, split.blocked_otherwise)
    waits = sum(each.mean for each in own) > WORTH_SAYING * held.send.mean
    return COPY_UNSEEN if waits else WITHOUT_WAIT


def sends_held(facts: Analysis) -> tuple[Portion, HostSplit] | None:
    """The token sends' hold on the host, and what it does in them; None where too few of the steps
    are seen whole to conclude anything."""
    returned = facts.token_return
    if returned is None or not returned.enough:
        return None
    host, split = returned.host_us, returned.split_us
    return (host, split) if host and split else None


def delivered(facts: Analysis) -> tuple[Portion, DeliverySplit] | None:
    """The time until the token ids are delivered, and what goes on in it; None where it is not
    known when the last byte has left."""
    returned = facts.token_return
    if returned is None or not returned.delivery_known:
        return None
    sent, split = returned.delivery_us, returned.delivery_split_us
    return (sent, split) if sent and split else None


def verdict(facts: Analysis) -> str:
    """What the host waits for most in the token send.

    A cause of `waits.CAUSES`, "no wait" where it waits for at most a tenth of the send, "cannot
    tell" where too few of the steps are seen whole, or clocks that may differ decide.
    """
    held = sends_held(facts)
    if held is None:
        return CANNOT_TELL
    host, split = held
    whole = host.send.mean
    causes: dict[Cause, float] = {
        "own_graph": split.blocked_on_own_graph.mean,
        "own_compute": split.blocked_on_own_compute.mean,
        "peer_late": split.peer_late.mean,
        "transfer": split.transfer.mean,
        "otherwise": split.blocked_otherwise.mean,
    }
    if sum(causes.values()) <= WORTH_SAYING * whole:
        return NO_WAIT
    most = max(causes, key=lambda cause: causes[cause])
    return most if most.startswith("own_") or clocks_do(facts, whole) else CANNOT_TELL


def of_several(facts: Analysis) -> bool:
    """Whether the one rank there seems to be sends to others: its file says nothing of them."""
    return facts.pp_size == 1 and any(e.src != e.dst for e in (*facts.p2p, *facts.p2p_gloo))


def token_return(facts: Analysis) -> list[str]:
    """How long the send holds the host, how much of it the rank's own graph runs, and the rest."""
    returned = facts.token_return
    if not returned:
        return [_no_token_return(facts)]
    src, dst = f"PP{returned.src}", f"PP{returned.dst}"
    held = sends_held(facts)
    if held is None:
        return [
            f"Token return {src} -> {dst}: cannot tell. "
            f"{returned.steps_counted} of {returned.steps_there} steps are complete in the "
            "traces: too few."
        ]
    host, split = held
    text = f"Token return {src} -> {dst}: {_what_holds(facts)} holds {src}'s host for "
    text += f"{time(host.send.mean)} {mean_of(returned.steps_counted, ' steps', host.send)}"
    whole = host.send.mean
    text += _of_it(facts, src, whole, split)
    return [text + _delivery(facts, src, dst, whole) if on_gpu(facts) else text]


def _what_holds(facts: Analysis) -> str:
    """What the host is in while it sends the token ids."""
    return "the batch that sends and receives" if facts.sends == "batched" else "the send"


def _of_it(facts: Analysis, src: str, whole: float, split: HostSplit) -> str:
    """What of the send is waiting for the rank's own work, and what is the send's own part."""
    if verdict(facts) == NO_WAIT:
        return ", and does not wait in it." if on_gpu(facts) else f"; {OF_A_CPU}."
    graph, others = split.blocked_on_own_graph.mean, split.blocked_on_own_compute.mean
    if graph + others <= WORTH_SAYING * whole:
        if not clocks_do(facts, whole):
            return "."
        late, moving = split.peer_late.mean, split.transfer.mean
        parts = [(late, "for its peer"), (moving, "for the transfer")]
        parts += [(split.blocked_otherwise.mean, f"for {UNSEEN}")]
        said = [f"{time(us)} {text}" for us, text in parts if us > WORTH_SAYING * whole]
        return f"; in it the host waits {' and '.join(said)}." if said else "."
    turn = facts.turns.get(facts.label_of_last())
    rest = whole - graph - others
    of_turn = f", {share(rest / turn.mean)} of a turn" if turn else ""
    what = "decode graph" if graph >= others else "kernels"
    if graph >= others and time(graph) != time(graph + others):
        what += f" ({time(graph)}) and other kernels"
    waits = [
        (split.peer_late.mean, "its peer", rest),
        (split.blocked_otherwise.mean, UNSEEN, whole),  # some of it is in any return from a wait
    ]
    peer = "".join(
        f", {time(us)} of it waiting for {what}"
        for us, what, of in waits
        if us > WORTH_SAYING * of and clocks_do(facts, rest)
    )
    return (
        f". For {time(graph + others)} of it the host waits for {src}'s own {what}, before whose "
        f"end there are no token ids; the send's own part is the rest, {time(rest)}{of_turn}{peer}."
    )


def _delivery(facts: Analysis, src: str, dst: str, host_us: float) -> str:
    """What goes on until the last byte has left, where that takes longer than the send itself."""
    known, returned = delivered(facts), facts.token_return
    if known is None or returned is None:
        return ""
    sent, split = known
    whole = sent.send.mean
    if whole <= 1.1 * host_us:
        return ""
    batched = facts.sends == "batched"
    no_send = "no NCCL or gloo send is under way"
    late = "the batch waits for a rank" if batched else f"{dst} has not started its receive"
    parts = [
        (split.own_graph.mean, f"{src}'s own decode graph runs and {no_send}"),
        (split.own_compute.mean, f"{src}'s other kernels run and {no_send}"),
        (split.peer_late.mean, late),
        (split.transfer.mean, "the transfer runs"),
        (split.other.mean, "neither kernels nor a send run"),
    ]
    most = sorted(parts, key=lambda part: -part[0])
    said = [f"for {time(us)} {text}" for us, text in most if us > WORTH_SAYING * whole]
    rest = sum(us for us, _ in parts if us <= WORTH_SAYING * whole)
    said += the_rest(rest, whole)
    after = f"{time(whole)}"
    if earliest := returned.delivery_earliest_us:
        after = f"{ms(earliest.mean)} to {after} (the batch is one kernel: when in it is not known)"
    return f" The last byte has left after {after}: {', '.join(said)}."


def _no_token_return(facts: Analysis) -> str:
    last = facts.pp_size - 1
    if of_several(facts):
        return (
            "Token return: not seen, the file does not say which rank it is of, and how many there "
            "are."
        )
    if not last:
        return "Token return: none, there is one PP rank."
    if not any(label.split(".")[0] == str(last) for label in facts.ranks):
        return f"Token return: not seen, PP{last} has no trace."
    if facts.gpu_only:
        return (
            "Token return: not seen, the trace has GPU activities only; profile with "
            '"activities": ["CPU", "GPU"].'
        )
    if any(label.split(".")[0] == str(last) for label in facts.p2p_without_metadata):
        return f"Token return: not seen, no P2P kernel of PP{last} says who its peer is."
    return f"Token return: not seen, PP{last} sent no tokens while it was recorded."


def not_known_of(facts: Analysis, returned: TokenReturn) -> list[str]:
    """What of a token return is not known, and why."""
    found = [
        f"of {count(number, 'token send')} of {returned.steps_there} how long it took: {why}. The "
        "means are of the others"
        for why, number in returned.gaps.items()
    ]
    if returned.enough and not returned.delivery_enough:
        found.append(
            f"when the last byte has left ({returned.delivered_counted} of "
            f"{returned.steps_there} sends are in the traces to their end)"
        )
    elif returned.enough and not returned.delivery_known and (open_us := _open_us(returned)):
        found.append(
            "when the last byte has left (it goes in one kernel with what is received, and may "
            f"have left {time(open_us)} before its end)"
        )
    elif returned.enough and not returned.delivery_known:
        found.append(
            "when the last byte has left (the ranks' clocks may differ by "
            f"{time(clock_doubt_us(facts.clocks, facts.hosts))})"
        )
    return found + _unpaired(facts, returned)


def _open_us(returned: TokenReturn) -> float:
    """How much earlier than at the end of its kernel the last byte may have left, where that is too
    much to say when; 0 where it is not."""
    latest, earliest = returned.delivery_us, returned.delivery_earliest_us
    if latest is None or earliest is None:
        return 0.0
    between = latest.send.mean - earliest.mean
    return between if between > WORTH_SAYING * latest.send.mean else 0.0


def _unpaired(facts: Analysis, returned: TokenReturn) -> list[str]:
    names = [
        edge.backend
        for edge in (*facts.p2p, *facts.p2p_gloo)
        if (edge.src, edge.dst) == (returned.src, returned.dst) and not edge.pairs
    ]
    if not names:
        return []
    backends = " and ".join(dict.fromkeys(names))
    return [f"what PP{returned.dst} does meanwhile (no {backends} sends to it are paired)"]

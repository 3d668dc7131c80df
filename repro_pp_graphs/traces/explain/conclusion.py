"""What to make of an analysis, in sentences: what was seen, the step, the longest wait, the return.

Every sentence is about means and says of how many steps. What too few steps show is not concluded:
it is listed as not known, with the reason.
"""

from __future__ import annotations

from repro_pp_graphs.traces.analysis_record import Analysis, Cause, RowName, Turn
from repro_pp_graphs.traces.explain import step_path
from repro_pp_graphs.traces.explain.token_return_words import (
    meaning,
    not_known_of,
    of_several,
    token_return,
)
from repro_pp_graphs.traces.explain.words import (
    RECEIVES,
    ROW_PHRASES,
    clocks_do,
    count,
    gpu_of,
    mean_of,
    names_of,
    neighbour,
    on_gpu,
    the_rest,
    time,
)

# A wait of a turn that is shorter than this share of it is not called long.
LONG_SHARE = 0.05


def conclusion(facts: Analysis) -> list[str]:
    """The sentences, in the order in which they are printed; each a paragraph."""
    found = [recorded(facts), *sharing(facts)]
    for part in (step, longest_wait, token_return, not_known):
        found += part(facts)
    return found


def recorded(facts: Analysis) -> str:
    """What was recorded: ranks, time, how the sends behave, steps seen of those there."""
    ranks = "one rank of several" if of_several(facts) else count(facts.pp_size, "PP rank")
    ranks += f" x {facts.tp_size} TP" if facts.tp_size > 1 else ""
    read, world = len(facts.ranks), facts.pp_size * facts.tp_size
    ranks += f", {read} with a trace" if read < world else ""
    window_us = facts.window_us
    text = f"{facts.case}: {ranks}, "
    together = "all recorded at once" if read > 1 else "recorded"
    text += f"{together} for {time(window_us)}" if window_us else f"not {together} long enough"
    returned = facts.token_return
    if returned:
        src = f"PP{returned.src}"
        text += f"; {returned.steps_counted} of {src}'s {returned.steps_there} decode steps"
        text += f" ({facts.tp_size} TP ranks)" if facts.tp_size > 1 else ""
        text += " are complete in the traces"
        if returned.prefill_steps:
            text += f", {count(returned.prefill_steps, 'prefill step')} left out"
    text += "."
    if returned and on_gpu(facts):
        text += f" {_sentence(meaning(facts))}"
    return text


def sharing(facts: Analysis) -> list[str]:
    """Which ranks share a GPU, or may: what figures of an idle GPU then are."""
    known = [gpu for gpu in facts.shared_gpus if gpu.shared]
    said = [
        f"{names_of(gpu.ranks)} {'share' if gpu.ranks[1:] else 'shares'} a GPU: {gpu.why}."
        for gpu in known
    ]
    if known:
        said.append(
            "Idle is a GPU while no kernel of any of its ranks runs; durations are not those of a "
            "GPU a rank."
        )
    lone = [gpu.ranks[0] for gpu in facts.shared_gpus if not gpu.shared and not gpu.ranks[1:]]
    if lone:
        share = "share GPUs" if lone[1:] else "shares its GPU"
        said.append(f"Cannot tell whether {names_of(lone)} {share} with a rank without a trace.")
    if open_ := [gpu for gpu in facts.shared_gpus if not gpu.shared and gpu.ranks[1:]]:
        names = "; ".join(names_of(gpu.ranks) for gpu in open_)
        said.append(
            f"Cannot tell whether {names} share a GPU: in the traces it has the same number, which "
            "is also so where each rank's process sees a GPU of its own alone. So nothing says how "
            "long a GPU is idle, only for how long none of a rank's own kernels runs."
        )
    return [" ".join(said)] if said else []


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def step(facts: Analysis) -> list[str]:
    """A step's time and what it is made of, the last rank's turn, and what its host does while its
    GPU is idle."""
    last = facts.label_of_last()
    turn = facts.turns.get(last)
    took = facts.decode_step
    found = []
    if took:
        found.append(
            f"A decode step takes {time(took.mean)} {mean_of(took.steps, '', took)}, with "
            f"{count(took.micro_batches, 'micro-batch')} under way."
        )
    if way := step_path.sentence(facts):
        found.append(way)
    if turn:
        text = f"A turn of PP{last}'s loop takes {time(turn.mean)} "
        text += mean_of(turn.turns, "", turn)
        if took and took.micro_batches > 1:
            text += f", {took.micro_batches} of them a step"
        found.append(text + idle(facts, turn, last))
    return found


def idle(facts: Analysis, turn: Turn, label: str) -> str:
    """What a rank's host does in a turn while its GPU computes nothing, the longest parts first;
    where it is not known whose GPU it is, while none of the rank's own kernels runs."""
    own_us, gpu, all_us = turn.gpu_idle, gpu_of(facts, label), turn.gpu_idle_of_all
    if own_us is None:
        return "."
    idle_us = own_us if all_us is None else all_us
    spent = {
        name: us
        for name, row in turn.rows.items()
        if (us := row.gpu_idle if all_us is None else row.gpu_idle_of_all)
    }
    most = sorted(spent.items(), key=lambda item: -item[1])
    said = [f"{ROW_PHRASES[name]} {time(us)}" for name, us in most if us >= 0.05 * idle_us]
    computes = time(turn.mean - own_us)
    if gpu is None:
        text = f": PP{label}'s GPU computes for {computes} of it and is without compute for "
    elif all_us is None:
        text = f": PP{label}'s own kernels run for {computes} of it, and none of them for "
    else:
        others = names_of([each for each in gpu.ranks if each != label])
        text = (
            f": PP{label}'s own kernels run for {computes} of it; its GPU, with those of {others}, "
            f"computes for {time(turn.mean - all_us)} and is without compute for "
        )
    text += time(idle_us)
    if not said:
        return text + "."
    rest = idle_us - sum(us for us in spent.values() if us >= 0.05 * idle_us)
    said += the_rest(rest, idle_us)
    return f"{text}. Its host spends these in {', '.join(said)}."


# The row in which the peer of a row has the other end of its messages, which have several parts.
OTHER_END: dict[RowName, RowName] = {
    "hidden_send": "hidden_recv",
    "hidden_recv": "hidden_send",
    "token_send": "token_recv",
    "token_recv": "token_send",
}
PARTS = "size, metadata and tensors go one after the other"


def longest_wait(facts: Analysis) -> list[str]:
    """The longest wait of any rank's turn: in which row and call, for what, and what is behind."""
    waits = [
        (us, label, name, cause)
        for label, turn in facts.turns.items()
        for name, row in turn.rows.items()
        for cause, us in row.waits.items()
    ]
    if not waits or facts.turns_unknown:
        return []  # the longest may be a rank's that is not known
    us, label, name, cause = max(waits, key=lambda wait: wait[0])
    turn = facts.turns[label]
    if us < LONG_SHARE * turn.mean:
        return [f"No host waits for longer than {time(us)} of a turn in one place."]
    row = turn.rows[name]
    call = max(row.calls, key=lambda key: row.calls[key], default="")
    text = (
        f"The longest wait of a turn{_seen_of(facts)}: PP{label}'s host in {ROW_PHRASES[name]}, "
        f"{time(us)} of its {time(row.mean)} a turn (means of {turn.turns} turns)"
        + f", in {call}" * bool(call)
        + ", "
    )
    if cause in ("peer_late", "transfer") and not clocks_do(facts, us):
        # whether the peer was late, or the message under way, is a matter of both ranks' clocks
        at_all = name in (*RECEIVES, "token_send", "hidden_send")
        return [f"{text}for {neighbour(label, name, facts.pp_size) if at_all else 'a peer'}."]
    return [text + _cause(facts, label, name, cause) + behind(facts, label, name, cause)]


def _seen_of(facts: Analysis) -> str:
    """That the longest wait may be one of a rank that has no trace."""
    all_read = len(facts.ranks) == facts.pp_size * facts.tp_size
    return "" if all_read else " in the ranks with a trace"


def _cause(facts: Analysis, label: str, name: RowName, cause: Cause) -> str:
    if cause == "own_graph":
        return "for its own decode graph."
    if cause == "own_compute":
        return "for its own kernels."
    if cause == "otherwise":
        return "for something that the trace does not show."
    if name not in (*RECEIVES, "token_send", "hidden_send"):
        return "for a peer." if cause == "peer_late" else "for a transfer."
    peer = neighbour(label, name, facts.pp_size)
    if cause == "transfer":
        return f"for the transfer {'from' if name in RECEIVES else 'to'} {peer}."
    return f"for {peer} to {'send' if name in RECEIVES else 'receive'}."


def behind(facts: Analysis, label: str, name: RowName, cause: Cause) -> str:
    """Who a late peer is itself waiting for, from rank to rank, as far as it explains most."""
    said: list[str] = []
    seen = {label}
    while cause == "peer_late" and name in (*RECEIVES, "token_send", "hidden_send"):
        late = facts.turns[label].rows[name]
        peer = neighbour(label, name, facts.pp_size).removeprefix("PP")
        place = max(late.peer_in, key=lambda row: late.peer_in[row], default=None)
        if place is None or late.peer_in[place] < 0.5 * late.waits["peer_late"]:
            break
        if peer in seen and said:  # round to the rank that waits
            break
        text = f"PP{peer} is in {ROW_PHRASES[place]}"
        turn = facts.turns.get(peer)
        row = turn.rows.get(place) if turn else None
        if row is None or peer in seen or not row.waits:
            said.append(text)
            break
        cause = max(row.waits, key=lambda key: row.waits[key])
        if place == OTHER_END[name] and cause in ("peer_late", "transfer"):
            # for another part of the message: for this one the first rank waits for the peer
            said.append(f"{text}, but not yet at this part of the message ({PARTS})")
            break
        in_messages = cause == "peer_late" and place in (*RECEIVES, "token_send", "hidden_send")
        whom = neighbour(peer, place, facts.pp_size).removeprefix("PP") if in_messages else ""
        if whom in seen:
            # what it mostly waits for there is of other times: now none would end
            said.append(f"{text} for {time(late.peer_in[place])} of these" if not said else text)
            break
        said.append(f"{text}, {_cause(facts, peer, place, cause).rstrip('.')}")
        seen.add(peer)
        label, name = peer, place
    return f" Meanwhile {'; '.join(said)}." if said else ""


def not_known(facts: Analysis) -> list[str]:
    """What is not known, and why: one paragraph, none where there is nothing."""
    found = not_known_of(facts, facts.token_return) if facts.token_return else []
    by_reason: dict[str, list[str]] = {}
    for label, why in facts.turns_unknown.items():
        by_reason.setdefault(why, []).append(f"PP{label}")
    for why, labels in by_reason.items():
        names = ", ".join(labels[:4]) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")
        found.append(f"what a turn of {names} is made of ({why})")
    if facts.pp_size > 1 and facts.turns and not facts.decode_step:
        found.append(f"a decode step's time ({facts.decode_step_unknown})")
    return [f"Not known: {'; '.join(found)}."] if found else []

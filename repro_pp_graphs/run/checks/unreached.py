"""Lengths in which cases differ: those that no prefill of the load reaches, chunks that cut it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from repro_pp_graphs.run.checks import kv_cache
from repro_pp_graphs.run.memory import context
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run_record import Launch, Load, Plan
from repro_pp_graphs.server.machine.gpus import Gpu

# tokens of a prefill batch from which on they change anything
LENGTHS = ("--chunked-prefill-size", "--max-prefill-tokens")
_WORD_BYTES = 9  # of a synthetic prompt's words, with the blank before them, at most
_ADDED = 2  # tokens that a tokenizer puts around a prompt, at most


def add_caveats(plan: Plan, root: Path, gpus: Sequence[Gpu]) -> None:
    """Say so of each launch that such an argument sets apart from those of another case; where no
    prefill reaches it, which load does.

    The most tokens that the load's prompts have in all are known by their bytes: a token of a
    byte-level or sentencepiece vocabulary takes one at least.
    """
    most = _most_tokens(plan, root)
    if most is None:
        return
    own = [
        (launch, flag, value)
        for launch in plan.launches
        for flag, value in _lengths(launch)
        if any((flag, value) not in _lengths(each) for each in plan.launches)
    ]
    for launch, flag, value in own:
        if flag == LENGTHS[0] and value <= most:
            launch.notes.append(
                f"{flag} {value} may cut this load's prefills (its prompts have {most:,} tokens at "
                "most in all); micro-batches of other sizes may form then, and the case runs "
                "another load: the result says so where it did"
            )
    missed = [each for each in own if most < each[2]]
    if not missed:
        return
    largest = max(value for _, _, value in missed)
    longer = _longer(plan, largest)
    # of chunks of prompts the batches of a step are others
    but = " (other micro-batches may form then: TTFT and TPOT compare, steps of traces may not)"
    chunks = but * any(flag == LENGTHS[0] for _, flag, _ in missed)
    batch = _batch(plan, longer, gpus)
    how = f"; with longer ones it is{chunks}: --sweep input_len={longer}{batch}"
    if longer <= largest:
        how = ", and the model's context has no room for longer ones"
    elif not any(each.input_len for each in plan.loads):
        plan.reaching = f"input_len={longer}"
    for launch, flag, value in missed:
        launch.caveats.append(
            f"{flag} {value} is not reached: the load's prompts have {most:,} tokens at most in "
            f"all{how}"
        )


def _longer(plan: Plan, least: int) -> int:
    """Tokens of a prompt that is more than `least`, or as long as the context allows."""
    most = context.shortest(plan.launches)
    room = most - plan.max_new_tokens - context.SPARE if most else 2 * least
    return min(2 * least, room)


def _batch(plan: Plan, length: int, gpus: Sequence[Gpu]) -> str:
    """Of how many prompts of a length the load is that the KV cache holds at once; empty where
    that is no fewer than now, or not known."""
    held = [tokens for one in plan.launches if (tokens := kv_cache.held(plan, one, gpus))]
    fit = min(held, default=0) // (length + plan.max_new_tokens)
    return f" --batch {fit} (more do not fit into the KV cache)" if 0 < fit < plan.batch else ""


def _lengths(launch: Launch) -> Iterator[tuple[str, int]]:
    for flag, text in zip(launch.args, launch.args[1:], strict=False):
        if flag in LENGTHS and text.isdecimal() and len(text) < 10:
            yield flag, int(text)


def _most_tokens(plan: Plan, root: Path) -> int | None:
    """Of all prompts that are in flight at once, under the largest load; None where it is not
    known, as beside prompts that arrive meanwhile."""
    loads = plan.loads or [client_words.main(plan)]
    if any(load.beside_len for load in loads):
        return None
    try:
        text = (root / "prompts.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None  # which the run refuses
    sizes = [len(line.strip().encode()) for line in text.splitlines() if line.strip()]
    return max(_of_load(load, sizes) for load in loads) if sizes else None


def _of_load(load: Load, sizes: list[int]) -> int:
    """`sizes`: bytes of the prompts.txt lines: the first ones, in turn; at a rate any."""
    if load.input_len:
        return load.batch * (load.input_len * _WORD_BYTES + _ADDED)
    if load.rate:
        return load.batch * (max(sizes) + _ADDED)
    whole, rest = divmod(load.batch, len(sizes))
    return whole * sum(sizes) + sum(sizes[:rest]) + load.batch * _ADDED

"""How a load was split: the micro-batches that decoded, held against those that were asked for."""

from __future__ import annotations

from collections.abc import Mapping

from repro_pp_graphs.pp_clock.clock_record import ClockFacts
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.release.release_facts import MICRO_BATCH

NOT_AS_ASKED = "its micro-batches are not those asked for"
OTHER_LOAD = "so it ran another load than a launch that has those (it counts all the same)"
WHY = (
    "What splits a load otherwise: prefills cut into chunks (--chunked-prefill-size below the "
    "tokens of all prompts: raise it, or look at TTFT of long prompts and ITL beside them, "
    "docs/cases_and_releases.md), fewer running requests or tokens than the load needs. A "
    "difference may come of that alone"
)


def remark(plan: Plan, launch: Launch, clocks: Mapping[str, ClockFacts]) -> list[str]:
    """A sentence on the measured passes of a launch whose micro-batches are not of the size asked
    for, or nothing; `clocks` by the label of the pass's result."""
    found = []
    names = {plan.load_label(launch, load.name): load.name for load in plan.loads}
    for label, clock in clocks.items():
        load = plan.load(names[label]) if label in names else None
        asked = (launch.loads.get(load.name) if load else None) or _of_arguments(launch)
        sizes = next((rank.decode_batches for rank in clock.ranks.values()), {})
        batch = load.batch if load else plan.batch
        if load and (load.rate or load.beside_len):
            batch = 0
        if asked and not _fits(sizes, asked, batch, clock.loop_size):
            under = f'under "{load.title}" ' if load else ""
            turns = ", ".join(
                f"{count} decode turns with {size} request{'s' * (size != '1')} each"
                for size, count in sizes.items()
            )
            found.append(f"{under}{turns}, in place of at most {asked}")
    if not found:
        return []
    return [f"{NOT_AS_ASKED}, {OTHER_LOAD}: {'; '.join(found)}. {WHY}"]


def _of_arguments(launch: Launch) -> int | None:
    """The size that the server was started with, by either name of the argument."""
    given = (launch.value(f"--{name.replace('_', '-')}") for name in MICRO_BATCH)
    return next((int(word) for word in given if word.isdigit()), None)


def _fits(sizes: Mapping[str, int], asked: int, batch: int, at_once: int) -> bool:
    """Whether micro-batches of those sizes can come of `batch` requests at once (0: they arrive one
    by one), at most `asked` in each of `at_once`: none is larger, and one is as large as it must
    be for all of them to be in flight."""
    if not sizes:
        return True
    largest = max(map(int, sizes))
    return min(asked, -(-batch // max(1, at_once))) <= largest <= asked

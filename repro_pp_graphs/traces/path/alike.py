"""What can be seen to differ between two cases: reasons not to compare their decode steps at all,
and what to know before they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from repro_pp_graphs.traces.analysis_record import Analysis, Manner
from repro_pp_graphs.traces.explain.words import names_of, on_gpu

# Mean micro-batches of one load are equally large to this; so many kernels more a batch, of all
# stages together, are another number of layers (of one model, releases differ by up to 7 %), and so
# many are worth a word.
SIZES_ALIKE, LAYERS_ALIKE, KERNELS_ALIKE = 1.1, 1.2, 1.1
MOST_SIZES = 4  # that are named one by one
STEPS_ALIKE = 0.1  # of the decode steps, how many may be of other sizes, their mean being alike
SENDS: dict[Manner, str] = {
    "on_device": "metadata copied to the GPU (as up to 0.5.2)",
    "synchronous": "blocking, over gloo first (as in 0.5.3 to 0.5.6)",
    "asynchronous": "asynchronous (as from 0.5.7)",
    "batched": "in one batch with receives",
    "unknown": "not known",
}
NEXT = (
    "Hold profiles of one model, one load and one number of ranks against each other, as the cases "
    "of a run are; what is said of each case alone stands."
)


class Unlike(NamedTuple):
    """Why two cases' steps cannot be compared; what else differs. Each `what: one and other`."""

    refused: list[str]
    named: list[str]


def unlike(a: Analysis, b: Analysis) -> Unlike:
    """What differs between two cases as far as their traces show it."""
    return Unlike([*_refused(a, b)], [*_named(a, b)])


def _refused(a: Analysis, b: Analysis) -> Iterator[str]:
    ranks = [f"PP {each.pp_size} x TP {each.tp_size}" for each in (a, b)]
    if ranks[0] != ranks[1]:
        yield f"other ranks: {ranks[0]} and {ranks[1]}"
    kinds = ["GPUs" if on_gpu(each) else "a CPU" for each in (a, b)]
    if kinds[0] != kinds[1]:
        yield f"other kinds of machine: {kinds[0]} and {kinds[1]}"
    under_way = [each.ring.micro_batches for each in (a, b)]
    if all(under_way) and under_way[0] != under_way[1]:
        yield f"other numbers of micro-batches under way: {under_way[0]} and {under_way[1]}"
    sizes = [batch_size(each) for each in (a, b)]
    if _apart(sizes, SIZES_ALIKE):
        yield f"other micro-batch sizes: {sizes[0]:.3g} and {sizes[1]:.3g} sequences"
    if a.hidden_size and b.hidden_size and a.hidden_size != b.hidden_size:
        yield f"other hidden size: {a.hidden_size} and {b.hidden_size}"
    kernels = [kernels_of(each) for each in (a, b)]
    if _apart(kernels, LAYERS_ALIKE):
        yield f"another model or number of layers: {_kernels(kernels)}"
    if _shares(a) != _shares(b) and all(gpu.shared for each in (a, b) for gpu in each.shared_gpus):
        yield f"ranks share GPUs otherwise: {_sharing(a)}, and {_sharing(b)}"


def _named(a: Analysis, b: Analysis) -> Iterator[str]:
    graphs = [any(each.graph_launches.values()) for each in (a, b)]
    if graphs[0] != graphs[1]:
        yield f"decode graphs: {' and '.join('with' if one else 'without' for one in graphs)}"
    for each, there in zip((a, b), graphs, strict=True):
        said = said_of_graphs(each.case)
        if said is not None and said != there and on_gpu(each):
            named = "with" if said else "without"
            launched = "some" if there else "none"
            yield f"{each.case} is named {named} graphs, and its ranks launched {launched}"
    yield from split_otherwise(a, b)
    if a.sends != b.sends:
        yield f"sends: {SENDS[a.sends]}; {SENDS[b.sends]}"
    annotated = [any(rank.next_batch_us for rank in each.ranks.values()) for each in (a, b)]
    if annotated[0] != annotated[1] and a.sends == b.sends:
        yield (
            "releases: one trace has sglang's get_next_batch_to_run, as from 0.5.7 on, the other "
            "has not: it is of an older release, or has lost it"
        )
    kernels = [kernels_of(each) for each in (a, b)]
    if _apart(kernels, KERNELS_ALIKE) and not _apart(kernels, LAYERS_ALIKE):
        yield f"releases or layers: {_kernels(kernels)}"
    if a.gpu_models and b.gpu_models and a.gpu_models != b.gpu_models:
        yield f"GPUs: {', '.join(a.gpu_models)} and {', '.join(b.gpu_models)}"
    if a.hosts and b.hosts and a.hosts != b.hosts:
        yield f"machines: {', '.join(a.hosts[:4])} and {', '.join(b.hosts[:4])}"
    open_ = [not all(gpu.shared for gpu in each.shared_gpus) for each in (a, b)]
    if _shares(a) != _shares(b) and any(open_):
        yield f"ranks share GPUs otherwise: {_sharing(a)}, and {_sharing(b)}"


def _apart(values: list[float | None], times: float) -> bool:
    """Whether two values are both known and one is more than so many times the other."""
    known = [value for value in values if value]
    return len(known) == len(values) and max(known) > times * min(known)


def _sizes(facts: Analysis) -> dict[str, int]:
    """How many decode steps of the last rank are of which size."""
    rank = facts.ranks.get(facts.label_of_last())
    return rank.decode_batch_sizes if rank else {}


def batch_size(facts: Analysis) -> float | None:
    """The mean size of the last rank's decode steps; None where it is not known."""
    sizes = _sizes(facts)
    steps = sum(sizes.values())
    return sum(int(size) * number for size, number in sizes.items()) / steps if steps else None


def split_otherwise(a: Analysis, b: Analysis) -> list[str]:
    """That a load of as many sequences a micro-batch, on average, is split into others: 3 and 5 in
    place of 4 and 4."""
    both = [_sizes(each) for each in (a, b)]
    steps = [sum(sizes.values()) for sizes in both]
    if not all(steps) or _apart([batch_size(a), batch_size(b)], SIZES_ALIKE):
        return []
    common = sum(
        min(sizes.get(size, 0) / n for sizes, n in zip(both, steps, strict=True))
        for size in both[0].keys() | both[1].keys()
    )
    if common >= 1 - STEPS_ALIKE:
        return []
    first, second = map(_steps, both)
    return [f"decode steps of other sizes: {first} in the first; {second} in the second"]


def _steps(sizes: dict[str, int]) -> str:
    """`12 at batch 3, 12 at batch 5`; in brief where there are many sizes."""
    if len(sizes) > MOST_SIZES:
        values = [int(size) for size in sizes]
        return f"{sum(sizes.values())} at batch {min(values)} to {max(values)}"
    return ", ".join(f"{number} at batch {size}" for size, number in sizes.items())


def kernels_of(facts: Analysis) -> float | None:
    """How many compute kernels a batch takes on all stages together, of the first TP rank; None
    where a stage's are not known."""
    firsts = [label for label in facts.ranks if label.endswith(".0") or "." not in label]
    found = [facts.ranks[label].kernels_a_batch for label in firsts]
    known = [each for each in found if each is not None]
    return sum(known) if known and len(known) == facts.pp_size else None


def _kernels(values: list[float | None]) -> str:
    return " and ".join(f"{value:.0f}" for value in values if value) + " kernels a batch"


def _shares(facts: Analysis) -> list[tuple[list[str], bool | None]]:
    return [(gpu.ranks, gpu.shared) for gpu in facts.shared_gpus]


def _sharing(facts: Analysis) -> str:
    """How a case's ranks are on GPUs."""
    if not facts.shared_gpus:
        return "one each"
    groups = "; ".join(names_of(gpu.ranks) for gpu in facts.shared_gpus)
    known = all(gpu.shared for gpu in facts.shared_gpus)
    return f"shared ({groups})" if known else f"perhaps shared ({groups})"


def said_of_graphs(case: str) -> bool | None:
    """Whether a case's name says that it has decode graphs; None where it says nothing of them."""
    words = re.split(r"[-_. /]+", case.lower())
    if not {"graph", "graphs"} & set(words):
        return None
    return not {"off", "no", "without", "eager"} & set(words)

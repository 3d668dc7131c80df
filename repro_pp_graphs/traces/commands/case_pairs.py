"""Which of several analysed cases are held against one another, and the tables of their steps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import product

from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.explain.words import wrapped
from repro_pp_graphs.traces.path import difference_words, host_speed
from repro_pp_graphs.traces.path.alike import NEXT, Unlike, unlike

# Parts of a case's name that only say whether it has graphs: of two cases alike in the rest of it,
# one with graphs and one without, the difference is that of graphs.
OF_GRAPHS = {"graph", "graphs", "cuda", "decode", "eager", "on", "off", "no", "with", "without"}
NO_GRAPHS = (
    "(neither has decode graphs: what differs is not their doing. Launches differ also without any "
    "change: several of each case tell)"
)
TWO = "python -m repro_pp_graphs analyze ON OFF (OFF less ON)"
ANOTHER = f"another pair: {TWO}"
MOST_NAMED = 3  # cases that are not comparable with the first, each with its reasons


def lines(found: Sequence[Analysis]) -> list[str]:
    """What the decode steps of each pair wait for, side by side; with more pairs than are shown,
    how to ask for another one."""
    known = [each for each in found if each.ring_path]
    text: list[str] = []
    for first, second in ((known[a], known[b]) for a, b in pairs(known)):
        if first.ring_path and second.ring_path:
            found_unlike = unlike(first, second)
            text += ["", *_unlike(first, second, found_unlike)]
            if found_unlike.refused:
                continue
            text += difference_words.lines(
                first.case, first.ring_path, second.case, second.ring_path
            )
            marks = difference_words.marks(first.case, second.case)
            if uneven := host_speed.unequal(marks[0], first, marks[1], second):
                text += wrapped(f"({uneven})", "")
            if not with_graphs(first) and not with_graphs(second):
                text += wrapped(NO_GRAPHS, "")
    several = len(known) > 2
    return [*text, "", ANOTHER] if several else text


def _unlike(first: Analysis, second: Analysis, found: Unlike) -> list[str]:
    """That two cases are not comparable, or what to know before they are compared."""
    text = []
    if found.refused:
        text += wrapped(f"{second.case} against {first.case}: not comparable", "")
        text += [line for each in found.refused for line in wrapped(f"- {each}")]
    elif found.named:
        text += wrapped(f"{first.case} and {second.case} differ in:", "")
    text += [line for each in found.named for line in wrapped(f"- {each}")]
    return text + (wrapped(NEXT, "") if found.refused else [])


def not_alike(found: Sequence[Analysis]) -> list[str]:
    """Of cases in one table, those that cannot be compared with the first, with the reasons; of
    many how many of them, by what they differ in."""
    first = found[0].case
    reasons = {each.case: unlike(found[0], each).refused for each in found[1:]}
    apart = {case: refused for case, refused in reasons.items() if refused}
    if len(apart) <= MOST_NAMED:
        return [
            line
            for case, refused in apart.items()
            for line in wrapped(f"! {case} is not comparable with {first}: {'; '.join(refused)}")
        ]
    kinds = Counter(text.partition(":")[0] for refused in apart.values() for text in refused)
    by_kind = ", ".join(f"{kind} ({number})" for kind, number in kinds.most_common())
    those = f"{len(apart)} of the {len(reasons)}" if len(apart) < len(reasons) else "All"
    return wrapped(
        f"! {those} below {first} are not comparable with it: {by_kind}. Pairs that "
        f"are stand below; any two: {TWO}"
    )


def pairs(found: Sequence[Analysis]) -> list[tuple[int, int]]:
    """The pairs to show as indices, the second of each against its first.

    Of more than two cases each without graphs against those with, that are alike in the rest of
    their names; else, and where there are none such, every further case against the first. Cases of
    a run go by their letters: B against A, in whatever order they were named.
    """
    letters = [difference_words.letter(each.case) for each in found]
    order = sorted(range(len(found)), key=lambda at: letters[at] if all(letters) else "")
    graphs = [with_graphs(each) for each in found]
    rests = [_rest(each.case) for each in found]
    alike = [
        (on, off)
        for on, off in product(order, repeat=2)
        if graphs[on] and not graphs[off] and rests[on] == rests[off]
    ]
    chosen = alike if len(found) > 2 else []
    return chosen or [(order[0], other) for other in order[1:]]


def with_graphs(facts: Analysis) -> bool:
    """Whether any rank launched a CUDA graph."""
    return any(facts.graph_launches.values())


def _rest(case: str) -> list[str]:
    """A case's name without the parts that say whether it has graphs."""
    return [part for part in re.split(r"[-_. /]+", case.lower()) if part not in OF_GRAPHS]

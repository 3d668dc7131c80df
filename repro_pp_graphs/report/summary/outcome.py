"""What stands on top at the end of a run: the headline, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from repro_pp_graphs.report.launch_row import with_names
from repro_pp_graphs.report.number_words import number, percent
from repro_pp_graphs.report.summary import sentences
from repro_pp_graphs.stats.looks import LEVEL, MORE
from repro_pp_graphs.stats.verdict_record import Finding, Pair, Verdict
from repro_pp_graphs.terminal import wrapped


def lines(found: Verdict, names: Mapping[str, str] | None = None) -> list[str]:
    """Headline, findings, #10865's figures and ours, the comparison of every pair.

    `names`: what to call a case, where not by its name.
    """
    pairs = [renamed(pair, names or {}) for pair in found.pairs]
    if found.limits:  # more launches here would be no evidence either
        pairs = [_without_more(pair) for pair in pairs]
    if found.headline == "NOT ASKED":
        alone = [found.text, found.reason] if not pairs else []
        said = [line for text in alone for line in wrapped(text)]
        return [*said, *_pairs(pairs), *_crossed(found), *_floor(found)]
    out = wrapped(f"#10865: {found.headline}. {found.text}")
    for finding in found.findings:
        out += _finding(finding, bool(found.limits))
    out += _beside(found)
    if found.reason:
        out += wrapped(found.reason, "  ")
    return [*out, *_pairs(pairs), *_crossed(found), *_floor(found)]


def _without_more(pair: Pair) -> Pair:
    """The pair without the advice to measure more."""
    comparisons = [
        replace(each, why=each.why.partition(f": {MORE} ")[0]) for each in pair.comparisons
    ]
    return replace(pair, comparisons=comparisons)


def renamed(pair: Pair, names: Mapping[str, str]) -> Pair:
    """The pair with its cases called otherwise."""
    called = {case: names.get(case, case) for case in (pair.a, pair.b)}
    comparisons = [
        replace(each, favours=called.get(each.favours, ""), why=with_names(each.why, called))
        for each in pair.comparisons
    ]
    return replace(pair, a=called[pair.a], b=called[pair.b], comparisons=comparisons)


def _finding(finding: Finding, limited: bool) -> list[str]:
    """An answer and why; where the run is no evidence of any, its figures alone."""
    if not limited:
        answer = f"{finding.question} {finding.answer.capitalize()}. {finding.text}"
        return _indented(f"  {finding.name:<7} {answer}")
    # TPOT stands below, with its word
    figures = "" if finding.name == "cost" else sentences.figures(finding)
    return _indented(f"  {finding.name:<7} {figures}") if figures else []


def _indented(text: str) -> list[str]:
    first, *others = wrapped(text)
    rest = wrapped(" ".join(others), " " * 10) if others else []
    return [text[: len(text) - len(text.lstrip())] + first.lstrip(), *rest]


def _beside(found: Verdict) -> list[str]:
    """#10865's figures, and the same of this run."""
    if not found.ours_ms:
        return []
    rows = [("in #10865", found.issue_ms), ("here", found.ours_ms)]
    titles = {
        "send": "token return ms",
        "under_own_graph": "under own graph",
        "idle": "no compute",
        "without_graphs": "without graphs",
    }
    out = ["  " + " " * 10 + "".join(f"{title:>17}" for title in titles.values())]
    for name, values in rows:
        out.append(f"  {name:<10}" + "".join(f"{number(values.get(key)):>17}" for key in titles))
    return out


def _pairs(pairs: Sequence[Pair]) -> list[str]:
    """The primary metric of each pair in a sentence, the mechanism's where it was tested, and what
    was left out of them."""
    out: list[str] = []
    for pair, primary in zip(pairs, sentences.primaries(pairs), strict=True):
        out += wrapped(primary) if primary else []
        for each in pair.comparisons:
            if each.role == "mechanism" and each.estimate:
                out += wrapped(sentences.comparison(pair, each))
        for left in pair.left_out:
            out += wrapped(f"{left.label} is left out: {left.why}", "  ")
        unusual = [note for note in pair.notes if note != pair.alpha_why or pair.alpha < LEVEL]
        for note in [f"UNPROVEN: {pair.unproven}"] * bool(pair.unproven) + unusual:
            out += wrapped(note[0].upper() + note[1:] + ".", "  ")
    return out


def _crossed(found: Verdict) -> list[str]:
    """Graphs by sends: what a 2 x 2 says."""
    no_evidence = " (This run is no evidence of it.)" if found.limits else ""
    return [
        line
        for each in found.interactions
        for line in wrapped(f"{sentences.crossed(each)}{no_evidence}")
    ]


def _floor(found: Verdict) -> list[str]:
    """The noise floor of a case compared with itself."""
    if found.floor is None:
        return []
    text = "Noise floor, of a case against itself: differences up to "
    return wrapped(f"{text}{percent(found.floor)} are not excluded between equal arms.")

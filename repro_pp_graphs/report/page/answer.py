"""The head of a report: its headline, what that rests on, and what it is no evidence of."""

from __future__ import annotations

from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.summary import outcome, sentences
from repro_pp_graphs.report.tables.page_tables import first_explained
from repro_pp_graphs.stats.verdict_record import Pair, Verdict
from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.explain.token_return_words import token_return

MOST_SAID = 6  # cases of which traces alone are there
FINDING_TITLES = {
    "longer": "Does the last rank's token return take longer with graphs?",
    "idle": "Does its part in which the rank's GPU computes nothing take longer?",
    "cost": "Is TPOT worse with graphs?",
}


def answer(source: Source) -> tuple[str, list[str], list[str]]:
    """The headline, what it rests on, and what it is no evidence of."""
    found = source.summary
    if found is None:
        known = _explained(source)
        said = [f"{name}: {text}" for name, facts in known for text in token_return(facts)[:1]]
        more = len(said) - MOST_SAID
        said[MOST_SAID:] = [f"and {more} more, below: what the traces say"] if more > 0 else []
        return _headline_of_traces([name for name, _ in known]), said, []
    if found.verdict is None:
        return "No verdict: the run holds no comparison.", [], []
    verdict = found.verdict
    traced = [name for name, _ in _explained(source)]
    alone = not verdict.pairs and len(traced) == 1
    headline = _headline_of_traces(traced) if alone else _headline(source, verdict)
    limits = [each for each in verdict.limits if each.casefold() not in headline.casefold()]
    # of two equal arms a ratio would be remembered
    lead = [] if found.rehearsal and verdict.pairs else _lead(source, verdict)
    return headline, [text for text in lead if text != headline], limits


def _explained(source: Source) -> list[tuple[str, Analysis]]:
    return [(each.name, each.analysis) for _, each in first_explained(source) if each.analysis]


def _headline_of_traces(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"Where a decode step's time goes: {shown}"


def _headline(source: Source, verdict: Verdict) -> str:
    """As the run's end prints it."""
    if verdict.headline != "NOT ASKED":
        return f"#10865: {verdict.headline}. {verdict.text}"
    pairs = _pairs(source, verdict)
    return sentences.not_asked(pairs) if pairs else verdict.text


def _pairs(source: Source, verdict: Verdict) -> list[Pair]:
    """The pairs, their cases called as in the report."""
    names = {one.summary.case: source.cases[one.case] for one in source.launches}
    return [outcome.renamed(pair, names) for pair in verdict.pairs]


def _lead(source: Source, verdict: Verdict) -> list[str]:
    lines = [
        f"{FINDING_TITLES[each.name]} {each.answer[0].upper()}{each.answer[1:]}: "
        # what the run is no evidence of stands in the headline, not at each
        f"{(sentences.figures(each) or 'not measured') + '.' if verdict.limits else each.text}"
        for each in verdict.findings
    ]
    pairs = _pairs(source, verdict)
    if not lines:
        lines += [text for text in sentences.primaries(pairs) if text]
        lines += [f"{text[0].upper()}{text[1:]}." for text in sentences.looks(pairs)]
    lines += [sentences.crossed(each) for each in verdict.interactions]
    return lines + ([verdict.reason] if verdict.reason else [])

"""The ratio of two cases in a cell of a table: with its interval, its word and its marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from repro_pp_graphs.report.summary import sentences
from repro_pp_graphs.report.tables.report_metrics import interval
from repro_pp_graphs.stats.metric_names import IDLE, RETURN
from repro_pp_graphs.stats.verdict_record import Comparison, Finding, Pair

UNLIKE, FLAT = "one unlike", "spread 0"  # marks


def compared(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    word = comparison.word.lower()
    if word.startswith("no difference"):
        word = f"no difference above {100 * comparison.margin:g} %"
    if comparison.estimate is None:
        return word
    flat = sentences.spreadless(comparison.estimate, "", "")
    marks = f", {UNLIKE}" * bool(comparison.outlying) + f", {FLAT}" * bool(flat)
    return f"{interval(comparison.estimate)} {word}{marks}"


def marks(pairs: Sequence[Pair], cells: Iterable[str]) -> str:
    """What the marks of these ratios mean."""
    found = ""
    if told := sentences.unlike(pairs):
        found += f". {UNLIKE}: a launch is unlike the others, but counts: {'; '.join(told)}"
    if any(cell.endswith(FLAT) for cell in cells):
        found += (
            f". {FLAT}: that of one case's launches was estimated as 0, for which the interval is "
            "wider (docs/verdict.md)"
        )
    return found


def answers(findings: list[Finding]) -> dict[str, str]:
    """What became of #10865's questions about the token return, by metric: the answer with the
    difference that it rests on."""
    asked = {"longer": RETURN, "idle": IDLE}
    return {
        asked[each.name]: f"{sentences.interval(each.difference)} {each.unit} {each.name}: "
        f"{each.answer}"
        for each in findings
        if each.name in asked and each.difference
    }


def untestable(pairs: Sequence[Pair]) -> str:
    """Why pairs that were measured several times have no interval, a sentence for each reason."""
    found = [pair.primary for pair in pairs]
    reasons = [
        each.why
        for each in found
        if not each.estimate and min(len(each.values_a), len(each.values_b)) > 1
    ]
    return "".join(f". No interval: {why}" for why in dict.fromkeys(reasons))


def unlike_launches(summary: dict[str, Any]) -> set[tuple[str, str]]:
    """(metric, label) of each launch unlike the others; none in a rehearsal."""
    pairs = [] if summary["rehearsal"] else (summary.get("verdict") or {}).get("pairs", [])
    comparisons = [each for pair in pairs for each in pair["comparisons"]]
    return {(each["metric"], label) for each in comparisons for label in each.get("outlying", [])}

"""What stands on top at the end of a run: the headline, and how it came about."""

from __future__ import annotations

from repro_pp_graphs.report import sentences
from repro_pp_graphs.report.numbers import number, percent
from repro_pp_graphs.stats.model import Finding, Verdict
from repro_pp_graphs.terminal import wrapped


def lines(found: Verdict) -> list[str]:
    """Headline, findings, #10865's figures and ours, the comparison of every pair."""
    if found.headline == "NOT ASKED":
        out = wrapped(found.text)
        return [*out, *_pairs(found, skip=1), *_floor(found)]
    out = wrapped(f"#10865: {found.headline}. {found.text}")
    for finding in found.findings:
        out += _finding(finding)
    out += _beside(found)
    if found.reason:
        out += wrapped(found.reason, "  ")
    return [*out, *_pairs(found), *_floor(found)]


def _finding(finding: Finding) -> list[str]:
    return _indented(f"  {finding.name:<7} {finding.answer}: {finding.text}", 10)


def _indented(text: str, by: int) -> list[str]:
    first, *others = wrapped(text)
    rest = wrapped(" ".join(others), " " * by) if others else []
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


def _pairs(found: Verdict, skip: int = 0) -> list[str]:
    """The primary metric of each pair in a sentence, and what was left out of it."""
    out: list[str] = []
    for pair in found.pairs[skip:]:
        out += wrapped(sentences.comparison(pair, pair.primary))
        for each in pair.left_out:
            out += wrapped(f"{each.label} is left out: {each.why}", "  ")
        out += wrapped(f"UNPROVEN: {pair.unproven}", "  ") if pair.unproven else []
    return out


def _floor(found: Verdict) -> list[str]:
    """The noise floor of a case compared with itself."""
    if found.floor is None:
        return []
    text = "Noise floor, of a case against itself: differences up to "
    return wrapped(f"{text}{percent(found.floor)} are not excluded between equal arms.")

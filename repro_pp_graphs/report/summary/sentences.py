"""The verdict in sentences; what is printed of an estimate."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from repro_pp_graphs.report.number_words import count, number, percent
from repro_pp_graphs.stats.looks import LEVEL
from repro_pp_graphs.stats.metric_names import CLIENT, CONTROL, OUTSIDE
from repro_pp_graphs.stats.verdict_record import Comparison, Estimate, Finding, Interaction, Pair

# of the larger mean: by so much a difference of means is seen not to be the one beside it
VISIBLE = 0.01
NO_SPREAD = 1e-8  # of a log or in a unit: what rounding leaves of 0
FEW_DF = 3  # degrees of freedom; below it the t quantile grows fast
NAMES = {name: each.title for name, each in CLIENT.items()} | {
    CONTROL: "TTFT of one prompt alone",
    OUTSIDE: "waits outside own work",
}


LARGEST = 1000  # end of a ratio's interval that has its figure
MOST_FACTOR = 10  # that is worth its figure: beyond, a run shows nothing


def interval(found: Estimate) -> str:
    """`0.949 [0.934, 0.964]`; of a difference `+1.02 [0.51, 1.53]`."""
    if found.scale == "ratio":
        high = f"{found.high:.3f}" if found.high < LARGEST else f"over {LARGEST}"
        return f"{found.value:.3f} [{found.low:.3f}, {high}]"
    ends = f"[{number(found.low, 3)}, {number(found.high, 3)}]"
    return f"{found.value:+.3g} {ends}"


def word(found: Comparison | Interaction) -> str:
    """`NO DIFFERENCE LARGER THAN 5 %`, or the word as it is."""
    margin = percent(found.margin)
    return f"{found.word} {margin}" if found.word.endswith("THAN") else found.word


def comparison(pair: Pair, found: Comparison) -> str:
    """One metric of a pair: ratio, interval, word, and what the word rests on or lacks."""
    name = NAMES.get(found.metric, found.metric)
    head = f"{name}, {pair.a} / {pair.b}"
    if found.estimate is None:
        return f"{head}: CANNOT TELL: {found.why}."
    launches = f"{len(found.values_a)} + {len(found.values_b)} launches"
    sure = f"{100 * (1 - pair.alpha):.3g} % interval"
    flat = spreadless(found.estimate, pair.a, pair.b)
    if found.estimate.df < FEW_DF:  # why an interval is wide that so few launches do not explain
        launches += f", {found.estimate.df:.1f} degrees of freedom"
    launches += f", {flat}" if flat else ""
    text = f"{head}: {interval(found.estimate)} ({sure}, {launches}): "
    text += word(found)
    if found.favours:
        text += f", {found.favours} is better"
    text += f": {found.why}"
    sizes = "" if pair.withheld else seen(found)
    return f"{text}.{sizes}{outlying(found)}"


def spreadless(found: Estimate, a: str, b: str) -> str:
    """Whose launches' spread was estimated as 0, which says no more than that it is the smaller
    one: the interval is wider for it (docs/verdict.md). Empty where neither's was."""
    spreads = ((a, found.spread_a), (b, found.spread_b))
    flat = [case for case, spread in spreads if spread < NO_SPREAD]
    if not flat:
        return ""
    return f"spread of {' and of '.join(flat)} estimated as 0, for which the interval is wider"


def crossed(found: Interaction) -> str:
    """A 2 x 2 in a sentence: what graphs change with either way to send, and their ratio."""
    head = f"{NAMES.get(found.metric, found.metric)}, graphs x sends"
    if found.ratio is None or found.ratio_blocking is None:
        return f"{head}: CANNOT TELL: {found.why}."
    text = (
        f"{head}: graphs on / off is {found.ratio:.3f} as released and {found.ratio_blocking:.3f} "
        "with blocking sends"
    )
    if found.estimate is None:
        return f"{text}: CANNOT TELL: {found.why}."
    sure = f"{100 * (1 - found.alpha):.3g} % interval"
    rounds = count(len(found.by_round), "round")
    ratio = "these two ratios, the second by the first (the interaction): "
    ratio += f"{interval(found.estimate)} ({sure}, {rounds})"
    return f"{text}; {ratio}: {word(found)}: {found.why}."


def seen(found: Comparison) -> str:
    """What so many launches show, and the rounds it takes to know, where it cannot tell."""
    if found.word != "CANNOT TELL" or found.detectable is None:
        return ""
    effect = f"notices only a difference of {percent(found.detectable)} or more (in 4 runs of 5)"
    if found.detectable > 1:
        effect = f"notices only a factor of {1 + found.detectable:.2g} or more (in 4 runs of 5)"
    if found.detectable > MOST_FACTOR:
        effect = f"would not notice a factor of {MOST_FACTOR}"
    needed = f"about {found.rounds_needed} rounds"
    if found.rounds_needed is None:
        needed = "more than 64 rounds: find first what makes launches of one case differ so much"
    return (
        f" Launches of one case differ so much that a run of this size {effect}; to notice a "
        f"difference of {percent(found.margin)} takes {needed}."
    )


def outlying(found: Comparison) -> str:
    """The launches unlike the others, and the ratio without them."""
    if not found.outlying:
        return ""
    return f" Unlike the others, but counted: {_unlike(found)}."


def unlike(pairs: Sequence[Pair]) -> list[str]:
    """The launches unlike the others in a metric of a pair, with the ratio without them."""
    return [
        f"{NAMES.get(each.metric, each.metric)}, {pair.a} / {pair.b}: {_unlike(each)}"
        for pair in pairs
        for each in pair.comparisons
        if each.outlying
    ]


def _unlike(found: Comparison) -> str:
    without = found.without_outlying
    rest = f" (without: {interval(without)})" if without else ""
    return f"{', '.join(found.outlying)}{rest}"


def not_asked(pairs: Sequence[Pair]) -> str:
    """What a run says whose cases do not ask #10865's question: of several pairs the first."""
    if not pairs:
        return "One case: nothing to compare."
    return next(text for text in primaries(pairs) if text)


def primaries(pairs: Sequence[Pair]) -> list[str]:
    """The primary metric of each pair. Pairs of one case that cannot be told apart for the same
    reason share the sentence of the first of them; "" for the others."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        if pair.primary.estimate is None:
            alike.setdefault(_untold(pair), []).append(pair.b)
    out = []
    for pair in pairs:
        cases = alike.get(_untold(pair), []) if pair.primary.estimate is None else [pair.b]
        others = f"{', '.join(cases[:-1])} and {cases[-1]}" if len(cases) > 1 else pair.b
        first = pair.b == cases[0]
        out.append(comparison(replace(pair, b=others), pair.primary) if first else "")
    return out


def _untold(pair: Pair) -> tuple[str, str, str]:
    return pair.a, pair.primary.metric, pair.primary.why


def headline(findings: Sequence[Finding], against: Sequence[str], judged: str = "") -> str:
    """The headline's reason in a sentence. `judged`: which cases, at which look."""
    said = ", ".join(f"{finding.name}: {finding.answer}" for finding in findings)
    if against:
        said = against[0][0].upper() + against[0][1:]
    return f"{said} ({judged})." if judged else f"{said}."


def looks(pairs: Sequence[Pair]) -> list[str]:
    """Why intervals are of another level than 5 %: an early look, an unplanned one, one of several;
    each reason once."""
    known = [each.alpha_why for each in pairs if each.alpha < LEVEL and not each.withheld]
    return list(dict.fromkeys(known))


def finding(found: Finding) -> str:
    """The figures of a finding, and what its answer rests on or lacks."""
    said = "; ".join(text for text in (figures(found), found.text) if text)
    return f"{said[0].upper()}{said[1:]}."


def figures(finding: Finding) -> str:
    """`21.7 against 5.25 ms`, with the intervals of difference and ratio where there are any, that
    on which the answer rests first."""
    if finding.a is None or finding.b is None:
        return ""
    text = f"{number(finding.a)} against {number(finding.b)} {finding.unit}"
    ratio = f", ratio {interval(finding.ratio)}" if finding.ratio else ""
    apart = ""
    if finding.difference:
        apart = f", difference {interval(finding.difference)} {finding.unit}"
        if finding.difference.df < FEW_DF:  # why an interval is wide
            apart += f" ({finding.difference.df:.1f} degrees of freedom)"
        apart += _drifted(finding)
    return text + (ratio + apart if finding.name == "cost" else apart + ratio)


def _drifted(finding: Finding) -> str:
    """Why the difference is not that of the two means, where one sees that."""
    if finding.difference is None or finding.a is None or finding.b is None:
        return ""
    of_means = finding.a - finding.b
    if abs(of_means - finding.difference.value) < VISIBLE * max(abs(finding.a), abs(finding.b)):
        return ""
    return (
        f" (of the means: {of_means:+.3g} {finding.unit}; the run drifted, and the cases' launches "
        "are not spread evenly over it)"
    )

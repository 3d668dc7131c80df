"""Does #10865 reproduce: three findings on graphs on (A) against graphs off (B), and a headline.

The rules were written before any run was looked at, but for the margin of a yes: docs/verdict.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from repro_pp_graphs.stats import p_values
from repro_pp_graphs.stats.arms import Sample
from repro_pp_graphs.stats.compare import LEAST_LAUNCHES, Metric, Rules, compare, difference, spread
from repro_pp_graphs.stats.metric_names import IDLE, MARGIN, RETURN
from repro_pp_graphs.stats.verdict_record import Answer, Comparison, Estimate, Finding, Headline

# of a decode step without graphs: a smaller difference in the token return counts as none
STEP_SHARE = 0.05
QUESTIONS = {
    "longer": "Does the last rank's token return take longer with graphs?",
    "idle": "Does its part in which the rank's GPU computes nothing take longer with graphs?",
    "cost": "Is TPOT worse with graphs than without?",
}
UNTIMED = "the token return was not timed in this run"
COST_OF_SENDS = "Is TPOT worse with graphs than without, or than with asynchronous sends?"


class Arms(NamedTuple):
    """Graphs on (a) and off (b), their launches that count, the step (ms) without graphs, what
    stands against any answer, and the difference in TPOT that counts as none."""

    a: str
    b: str
    samples: Sequence[Sample]
    step_ms: float | None
    rules: Rules
    against: str = ""
    margin: float = MARGIN  # asked for: a noise floor that is larger answers no question
    gaps_unseen: bool = False  # idle time misses the gaps between a batch's kernels (pp_clock)
    lacking: Mapping[str, str] = MappingProxyType({})  # by metric why no launch has it


def longer(arms: Arms) -> Finding:
    """Finding 1: the token return as a whole."""
    return _waiting(arms, "longer", RETURN)


def idle(arms: Arms) -> Finding:
    """Finding 2: its part outside the rank's own work. Waiting for the own graph is none of it.

    Without graphs a batch has gaps between its kernels. Where they are not seen, B's idle time is
    at least what was measured and at most its whole token return: "yes" has to hold against that.
    """
    found = _waiting(arms, "idle", IDLE)
    if found.answer != "yes" or not arms.gaps_unseen:
        return found
    most = [_all_idle(each) if each.case == arms.b else each for each in arms.samples]
    if _waiting(arms._replace(samples=most), "idle", IDLE).answer == "yes":
        return found
    why = (
        f"the gaps between the kernels of {arms.b} were not seen: its GPU may compute nothing in "
        "all of its token return (a trace tells: no compute)"
    )
    return msgspec.structs.replace(found, answer="cannot tell", text=why)


def _all_idle(sample: Sample) -> Sample:
    """As if nothing ran in the whole token return."""
    whole = {IDLE: sample.values[RETURN]} if RETURN in sample.values else {}
    return sample._replace(values={**sample.values, **whole})


def _waiting(arms: Arms, name: str, metric: str) -> Finding:
    ratio = compare(arms.a, arms.b, arms.samples, Metric(metric, "mechanism"), arms.rules)
    apart = difference(arms.a, arms.samples, metric, arms.rules.alpha)
    margin = None if arms.step_ms is None else STEP_SHARE * arms.step_ms
    answer, why = _longer_by(ratio, apart, margin, arms)
    return Finding(
        name="longer" if name == "longer" else "idle",
        question=QUESTIONS[name],
        answer=answer,
        text=why,
        source="profile" if ratio.values_a or ratio.values_b else "",
        a=ratio.mean_a,
        b=ratio.mean_b,
        ratio=ratio.estimate,
        difference=apart,
        margin=margin,
    )


def _longer_by(
    ratio: Comparison, apart: Estimate | None, margin: float | None, arms: Arms
) -> tuple[Answer, str]:
    """yes: the whole interval lies at the margin or above it; no: the whole of it lies below."""
    why = _untold(ratio, arms, margin)
    if why or apart is None or margin is None:
        return "cannot tell", why or ratio.why
    a, b = list(ratio.values_a.values()), list(ratio.values_b.values())
    agree = p_values.separate(a, b) or p_values.exact_p(a, b) <= arms.rules.alpha
    least = f"by {STEP_SHARE:.0%} of a decode step without graphs ({margin:.3g} ms) or more"
    if apart.low >= margin and agree:
        return "yes", least
    if apart.high < margin:
        return "no", f"not {least}"
    return "cannot tell", _what_is_open(apart, least, agree)


def _untold(ratio: Comparison, arms: Arms, margin: float | None) -> str:
    """Why there is no answer, whatever the figures are; empty for nothing."""
    counts = (len(ratio.values_a), len(ratio.values_b))
    if not any(counts):
        return arms.lacking.get(ratio.metric) or UNTIMED
    if against := arms.against or arms.rules.withheld:
        return against
    if min(counts) < LEAST_LAUNCHES:
        few = f"{spread(counts)} launches a case: too few"
        return few if min(counts) > 1 else ratio.why
    if margin is None:
        return f"no decode step of {arms.b} was measured to judge a difference by"
    return ""


def _what_is_open(apart: Estimate, least: str, agree: bool) -> str:
    """Whether it is longer at all, or by the margin; `agree`: the launches' order says so too."""
    if apart.low <= 0:
        return f"it may be longer {least}, or not"
    if not agree:
        return "longer by the interval, but launches of the two overlap"
    return f"it is longer, but whether {least} is open"


def cost(arms: Arms, without: Comparison, asynchronous: Comparison | None) -> Finding:
    """Finding 3: TPOT of A against B, and against graphs with asynchronous sends where measured."""
    legs = [_worse(arms, without)]
    if asynchronous is not None:
        legs.append(_worse(arms, asynchronous))
    answers = [answer for answer, _ in legs]
    answer: Answer = "no"
    if "cannot tell" in answers:
        answer = "cannot tell"
    if "yes" in answers:
        answer = "yes"
    return Finding(
        name="cost",
        question=COST_OF_SENDS if asynchronous else QUESTIONS["cost"],
        answer=answer,
        text=_of_legs([why for _, why in legs]),
        source="client" if without.mean_a is not None else "",
        a=without.mean_a,
        b=without.mean_b,
        ratio=without.estimate,
        difference=difference(arms.a, arms.samples, without.metric, arms.rules.alpha),
    )


def _of_legs(whys: Sequence[str]) -> str:
    """What the answer rests on, of each leg where they have different reasons."""
    if len(set(whys)) == 1:
        return whys[0]
    others = ("graphs off", "asynchronous sends")
    return "; ".join(f"against {what}: {why}" for what, why in zip(others, whys, strict=True))


def _worse(arms: Arms, found: Comparison) -> tuple[Answer, str]:
    if arms.against:
        return "cannot tell", arms.against
    if found.word == "DIFFERENT":
        worse = found.favours != arms.a
        return ("yes", f"worse: {found.why}") if worse else ("no", f"better: {found.why}")
    if found.word == "NO DIFFERENCE LARGER THAN":
        least = f"no difference larger than {found.margin:.0%}"
        most = found.estimate.high if found.estimate else 1 + found.margin
        if most < 1 + arms.margin:  # of A / B: it is not worse by more
            return "no", least if found.margin <= arms.margin else f"not by {arms.margin:.0%}"
        return "cannot tell", f"{least}, the noise floor; one of {arms.margin:.0%} would matter"
    return "cannot tell", found.why


def headline(findings: Sequence[Finding]) -> Headline:
    """REPRODUCED: all three; PARTLY: one or two; NOT REPRODUCED: three times no."""
    answers = [finding.answer for finding in findings]
    if all(answer == "yes" for answer in answers):
        return "REPRODUCED"
    if "yes" in answers:
        return "PARTLY"
    return "NOT REPRODUCED" if all(answer == "no" for answer in answers) else "CANNOT TELL"

"""stats/: the word for a comparison, the three findings, the headline."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from repro_pp_graphs.report.summary import sentences
from repro_pp_graphs.stats import findings
from repro_pp_graphs.stats.compare import Asked, Metric, Rules, Sample, compare, pair
from repro_pp_graphs.stats.findings import Arms
from repro_pp_graphs.stats.metric_names import CONTROL, IDLE, RETURN, TPOT
from repro_pp_graphs.stats.verdict_record import Finding

MAIN = Metric(TPOT, "primary")
NOISE = [0.3, -0.4, 0.1, 0.2, -0.3, 0.4, -0.1, -0.2]  # % of a launch


def samples(a: float, b: float, rounds: int = 4, spread: float = 1.0, **more) -> list[Sample]:
    """Launches in ABBA order around the means a and b; `more`: {metric: (a, b)}."""
    order = "".join("AB" if number % 2 == 0 else "BA" for number in range(rounds))
    found = []
    for at, arm in enumerate(order):
        scale = 1 + spread * NOISE[at % 8] / 100
        values = {TPOT: (a if arm == "A" else b) * scale}
        for name, both in more.items():
            values[name] = both[0 if arm == "A" else 1] * (1 + NOISE[(at + 3) % 8] / 100)
        found.append(Sample(f"{arm}{at}", arm, at // 2 + 1, values))
    return found


def said(found: list[Sample], **rules):
    return compare("A", "B", found, MAIN, Rules(**{"alpha": 0.05, **rules}))


@pytest.mark.parametrize(
    ("a", "b", "spread", "word", "favours"),
    [
        (53, 50, 1, "DIFFERENT", "B"),
        (47, 50, 1, "DIFFERENT", "A"),
        (50.1, 50, 1, "NO DIFFERENCE LARGER THAN", ""),
        (50.1, 50, 20, "CANNOT TELL", ""),
    ],
)
def test_the_words(a, b, spread, word, favours):
    found = said(samples(a, b, spread=spread))
    assert (found.word, found.favours) == (word, favours)
    assert (found.rounds_needed is None) == (word != "CANNOT TELL")
    assert found.detectable > 0


def test_higher_throughput_is_better():
    metric = Metric(TPOT, "secondary", "higher")
    assert compare("A", "B", samples(53, 50), metric, Rules(0.05)).favours == "A"


def test_an_interval_without_1_whose_launches_overlap_is_borderline():
    found = samples(50, 50)
    # a drift that hides the arms' order, and an arm that is longer than the drift explains
    moved = [
        Sample(
            s.label, s.case, s.round, {TPOT: s.values[TPOT] * 1.02**at * (1.02 ** (s.case == "A"))}
        )
        for at, s in enumerate(found)
    ]
    result = said(moved)
    assert result.estimate.low > 1 and not result.ranks_separate and result.exact_p > 0.05
    assert (result.word, result.favours) == ("BORDERLINE", "B")
    assert "add a block" in result.why


def test_the_exact_test_stands_in_for_ranks_that_do_not_separate():
    a, b = [53, 54, 55, 56, 57, 49.5], [50, 49, 48, 51, 50.5, 49.2]
    order = "ABBAABBAABBA"
    left = {"A": iter(a), "B": iter(b)}
    made = [Sample(f"{c}{n}", c, n // 2, {TPOT: next(left[c])}) for n, c in enumerate(order)]
    result = said(made)
    assert not result.ranks_separate and result.exact_p < 0.05
    assert result.word == "DIFFERENT"


@pytest.mark.parametrize(
    ("rounds", "says"), [(1, "too few to test"), (2, "2 launches a case: too few")]
)
def test_one_launch_is_too_few_and_two_show_an_interval(rounds, says):
    found = said(samples(60, 50, rounds=rounds))
    assert found.word == "CANNOT TELL" and says in found.why
    assert (found.estimate is None) == (rounds == 1)
    assert found.mean_a == pytest.approx(60, rel=0.01)


def test_where_one_case_has_fewer_launches_both_numbers_are_named():
    found = said(samples(60, 50, rounds=3)[:-1])
    assert (found.word, found.why) == ("CANNOT TELL", "2 to 3 launches a case: too few")


def test_aabb_is_refused_with_a_next_step():
    found = sorted(samples(60, 50), key=lambda each: each.case)
    result = said(found)
    assert result.word == "CANNOT TELL" and result.estimate is None
    assert "ABBA" in result.why


def test_what_is_missing_is_named():
    assert said([s for s in samples(60, 50) if s.case == "A"]).why == "not measured in B"
    zero = samples(60, 0)
    assert "no ratio" in said(zero).why


def test_a_launch_unlike_the_others_is_marked_and_counted():
    found = samples(50, 50)
    found[5].values[TPOT] *= 1.4
    result = said(found)
    assert result.outlying == [found[5].label]
    assert found[5].label in {**result.values_a, **result.values_b}
    assert result.word == "CANNOT TELL"  # blind, not wrong
    assert result.without_outlying.low < 1 < result.without_outlying.high
    assert result.without_outlying.high < result.estimate.high


def test_of_two_launches_of_a_case_neither_is_called_unlike_the_others():
    five = samples(60, 50)[:5]
    five[4] = five[4]._replace(label="B4", case="B")  # A B B A B, then it was cut short
    for each, tpot in zip(five, [81.2, 108.1, 105.7, 70.42, 101.0], strict=True):
        each.values[TPOT] = tpot
    assert said(five).estimate
    assert said(five).outlying == []


def test_holm_takes_back_a_word_of_the_secondary_metrics_alone():
    metrics = [MAIN, *(Metric(f"m{n}", "secondary") for n in range(5))]
    # on the edge: p of one is above .05 / 5 and below .05
    both = {f"m{n}": (50.42, 50) if n == 0 else (50, 50) for n in range(5)}
    result = pair("A", "B", samples(53, 50, **both), metrics, Asked([4]))
    first = next(each for each in result.comparisons if each.metric == "m0")
    assert 0.01 < first.estimate.p < 0.05 < first.p_holm
    assert first.word != "DIFFERENT"
    assert result.primary.word == "DIFFERENT" and result.primary.p_holm is None


def test_rounds_that_are_lacking_withhold_the_word_and_show_the_interval():
    made = samples(60, 50)
    made[-1] = Sample("B7", made[-1].case, 4, {}, fault="failed: the server died")
    result = pair("A", "B", made, [MAIN], Asked([6]))
    assert result.primary.word == "CANNOT TELL" and "3 of 6 rounds" in result.primary.why
    assert result.primary.estimate is not None
    assert [each.why for each in result.left_out] == ["failed: the server died"]


@pytest.mark.parametrize(("a", "word"), [(60, "DIFFERENT"), (50.6, "NO DIFFERENCE LARGER THAN")])
def test_with_three_quarters_of_the_rounds_what_is_plain_is_said_at_a_lower_level(a, word):
    made = samples(a, 50)
    made[-1] = Sample("B7", made[-1].case, 4, {}, fault="failed: the server died")
    early = pair("A", "B", made, [MAIN], Asked([4]))
    assert (early.primary.word, early.alpha) == (word, 0.01)
    assert any("3 of 4 rounds" in note for note in early.notes)
    as_planned = pair("A", "B", made, [MAIN], Asked([3]))
    assert as_planned.primary.word == "DIFFERENT" and as_planned.alpha == 0.05


def test_an_unplanned_extension_is_tested_at_a_lower_level():
    result = pair("A", "B", samples(53, 50), [MAIN], Asked([2], [4]))
    assert result.alpha == 0.01 and "unplanned" in result.alpha_why
    wide = said(samples(53, 50), alpha=0.01).estimate
    assert (result.primary.estimate.low, result.primary.estimate.high) == (wide.low, wide.high)


def test_sessions_are_a_covariate_and_said():
    made = [
        Sample(s.label, s.case, s.round, {TPOT: s.values[TPOT] * (1.3 if s.round > 2 else 1)},
               session=2 if s.round > 2 else 1)
        for s in samples(53, 50)
    ]  # fmt: skip
    result = pair("A", "B", made, [MAIN], Asked([4]))
    assert result.primary.estimate.value == pytest.approx(53 / 50, rel=0.01)
    assert result.primary.estimate.high < 1.1
    assert any("sessions" in note for note in result.notes)


@pytest.mark.parametrize(("control", "moved"), [((200, 200), False), ((230, 200), True)])
def test_a_control_that_moves_leaves_the_comparison_unproven(control, moved):
    made = samples(53, 50, **{CONTROL: control})
    result = pair("A", "B", made, [MAIN, Metric(CONTROL, "control")], Asked([4]))
    assert bool(result.unproven) == moved
    assert not moved or "TTFT of one prompt alone" in result.unproven


@pytest.mark.parametrize(
    ("spread", "rounds", "effect"),
    [
        (20, 4, "notices only a difference of "),
        (20, 2, "notices only a factor of "),
        (45, 2, "would not notice a factor of 10; "),
    ],
)
def test_what_cannot_be_told_says_what_such_launches_show_and_what_it_takes(spread, rounds, effect):
    result = pair("A", "B", samples(50.1, 50, rounds, spread), [MAIN], Asked([rounds]))
    text = sentences.comparison(result, result.primary)
    assert f"a run of this size {effect}" in text
    needed = result.primary.rounds_needed
    takes = f"about {needed}" if needed else "more than 64"
    assert f"to notice a difference of 5 % takes {takes} rounds" in text
    assert ("find first what makes launches of one case differ" in text) == (needed is None)


def arms(made: list[Sample], **changes) -> Arms:
    return Arms(
        **{"a": "A", "b": "B", "samples": made, "step_ms": 50.0, "rules": Rules(0.05), **changes}
    )


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        (70, 3, "yes"),  # #10865
        (5.2, 2.4, "yes"),  # 2.8 ms of a step of 50
        (0.55, 0.52, "no"),  # certainly longer, by 0.03 ms: immaterial
        (3, 70, "no"),
    ],
)
def test_longer_means_by_5_percent_of_a_step(a, b, answer):
    made = samples(50, 50, **{RETURN: (a, b), IDLE: (a, b)})
    for found in (findings.longer(arms(made)), findings.idle(arms(made))):
        assert found.answer == answer, found.text
        assert found.margin == 2.5
        assert found.difference.value == pytest.approx(a - b, rel=0.1)


def test_idle_time_that_is_nought_in_some_launches_has_a_difference():
    made = samples(50, 50, **{RETURN: (20, 20), IDLE: (0, 0)})
    found = findings.idle(arms(made))
    assert (found.answer, found.ratio, found.difference.value) == ("no", None, 0)


def test_a_wait_around_the_margin_cannot_be_told():
    rng = np.random.default_rng(1)
    made = samples(50, 50)
    for each in made:
        each.values[RETURN] = (12.5 if each.case == "A" else 10) + rng.normal()
    assert findings.longer(arms(made)).answer == "cannot tell"


def test_what_was_not_measured_or_speaks_against_it_is_no_answer():
    assert (
        findings.longer(arms(samples(50, 50))).text == "the token return was not timed in this run"
    )
    made = samples(60, 50, **{RETURN: (70, 3), IDLE: (70, 3)})
    for changes in ({"against": "ranks shared a GPU"}, {"rules": Rules(0.05, withheld="lacking")}):
        for found in (findings.longer(arms(made, **changes)), findings.idle(arms(made, **changes))):
            assert found.answer == "cannot tell" and found.text in ("ranks shared a GPU", "lacking")
            assert found.a > found.b  # the figures are shown all the same
    none = findings.longer(arms(made, step_ms=None))
    assert (none.answer, none.text) == (
        "cannot tell",
        "no decode step of B was measured to judge a difference by",
    )
    primary = said(made)
    assert (
        findings.cost(arms(made, against="graphs were off"), primary, None).answer == "cannot tell"
    )


WORSE, BETTER, FLAT = (53, 50), (47, 50), (50.05, 50)


@pytest.mark.parametrize(
    ("off", "asynchronous", "answer"),
    [
        (WORSE, None, "yes"),
        (BETTER, None, "no"),
        (FLAT, None, "no"),
        (BETTER, WORSE, "yes"),
        (WORSE, BETTER, "yes"),
        (BETTER, FLAT, "no"),
        (BETTER, "few", "cannot tell"),
    ],
)
def test_cost_has_two_legs(off, asynchronous, answer):
    def leg(values):
        return said(samples(60, 50, rounds=1) if values == "few" else samples(*values))

    other = None if asynchronous is None else leg(asynchronous)
    found = findings.cost(arms(samples(*off)), leg(off), other)
    assert found.answer == answer, found.text


@pytest.mark.parametrize(
    ("answers", "headline"),
    [
        (("yes", "yes", "yes"), "REPRODUCED"),
        (("yes", "no", "no"), "PARTLY"),
        (("yes", "cannot tell", "cannot tell"), "PARTLY"),
        (("no", "no", "no"), "NOT REPRODUCED"),
        (("no", "no", "cannot tell"), "CANNOT TELL"),
        (("cannot tell", "cannot tell", "cannot tell"), "CANNOT TELL"),
    ],
)
def test_the_headline(answers, headline):
    names = ("longer", "idle", "cost")
    made = [
        Finding(name=name, question="", answer=answer, text="")
        for name, answer in zip(names, answers, strict=True)
    ]
    assert findings.headline(made) == headline


def test_pairs_that_nothing_tells_apart_for_one_reason_share_a_sentence():
    one = [Sample(case, case, 1, {TPOT: 50.0 + at}) for at, case in enumerate("ABC")]
    several = samples(53, 50)
    pairs = [pair("A", "B", one, [MAIN], Asked([1])), pair("A", "C", one, [MAIN], Asked([1]))]
    other = pair("A", "D", one, [MAIN], Asked([1]))
    told = pair("A", "B", several, [MAIN], Asked([4]))
    texts = sentences.primaries([*pairs, other, told])
    why = "one launch a case: too few to test."
    assert texts[0] == f"TPOT mean, A / B and C: CANNOT TELL: {why}"
    assert texts[1] == ""
    assert "A / D: CANNOT TELL: not measured in D" in texts[2]
    assert texts[3] == sentences.comparison(told, told.primary)


def test_of_a_run_that_drifts_and_lacks_a_launch_the_means_are_said_not_to_give_the_difference():
    whole = [
        each._replace(values={TPOT: each.values[TPOT] * 1.02**at})
        for at, each in enumerate(samples(48, 50))
    ]
    texts = []
    for its in (whole, [whole[0], *whole[2:]]):
        found = pair("A", "B", its, [MAIN], Asked([6]))
        cost = findings.cost(Arms("A", "B", its, 50.0, Rules(0.05)), found.primary, None)
        texts.append((sentences.figures(cost), sentences.comparison(found, found.primary)))
    (of_all, _), (of_seven, untested) = texts
    why = "the run drifted, and the cases' launches are not spread evenly over it"
    assert "of the means" not in of_all and why in of_seven
    # it is a round that is missing, not that launches differ
    assert "3 of 6 rounds are measured" in untested and "; --resume measures" in untested
    assert "differ so much" not in untested


@pytest.mark.parametrize(("high", "text"), [(0.964, "0.964"), (158_233.1, "over 1000")])
def test_an_interval_that_says_nothing_has_no_figure_for_its_end(high, text):
    estimate = said(samples(53, 50)).estimate
    estimate.low, estimate.value, estimate.high = 0.4, 0.43, high
    assert sentences.interval(estimate) == f"0.430 [0.400, {text}]"

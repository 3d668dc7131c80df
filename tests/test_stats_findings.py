"""The finding on idle time, where a clock sees the ends of a batch and no gap within it."""

from __future__ import annotations

import pytest

from repro_pp_graphs.stats import findings
from repro_pp_graphs.stats.compare import Rules, Sample
from repro_pp_graphs.stats.metric_names import IDLE, RETURN

ORDER = "abbaabba"


def arms(a: tuple[float, float], b: tuple[float, float], gaps_unseen: bool) -> findings.Arms:
    """Four launches a case; token return and its idle part, ms; a step of 50 ms without graphs."""
    samples = []
    for number, case in enumerate(ORDER):
        whole, part = a if case == "a" else b
        slightly = 1 + 0.002 * (number % 3)
        values = {RETURN: whole * slightly, IDLE: part * slightly}
        samples.append(Sample(f"{case}{number}", case, number // 2 + 1, values))
    return findings.Arms("a", "b", samples, 50.0, Rules(0.05), gaps_unseen=gaps_unseen)


@pytest.mark.parametrize(
    ("a", "b", "gaps_unseen", "answer"),
    [
        ((100, 70), (3, 2), True, "yes"),  # #10865's: also if all of B's 3 ms were idle
        ((10, 6), (9, 1), False, "yes"),
        ((10, 6), (9, 1), True, "cannot tell"),  # B's idle time may be up to 9 ms
        ((10, 1), (9, 2), True, "no"),  # more idle time of B makes it no less so
    ],
)
def test_idle_time_is_longer_only_if_it_is_whatever_the_gaps_were(a, b, gaps_unseen, answer):
    found = findings.idle(arms(a, b, gaps_unseen))
    assert found.answer == answer, found.text
    if answer == "cannot tell":
        assert "gaps between the kernels of b" in found.text


# The token return of sglang 0.5.2 on four H200s, ms (docs/results/0.5.2_four_h200/series)
ON = (9.842, 9.863, 9.868, 9.804)
OFF = (5.047, 3.947, 3.416, 7.743)


@pytest.mark.parametrize(
    ("on", "off", "step_ms", "answer", "text"),
    [
        (ON, OFF, 25.0, "yes", "by 5% of a decode step without graphs (1.25 ms) or more"),
        (ON, OFF, 50.0, "cannot tell", "it is longer, but whether by 5% of a decode step"),
        (
            ON,
            OFF,
            106.6,
            "cannot tell",
            "it is longer, but whether by 5% of a decode step without graphs (5.33",
        ),
        (ON, OFF, 300.0, "no", "not by 5% of a decode step without graphs (15 ms) or more"),
        ((9.0, 9.1, 7.0, 9.2), (3.4, 3.5, 7.1, 3.6), 25.0, "cannot tell", "launches of the two ov"),
        (ON, (9.0, 3.9, 3.4, 14.0), 50.0, "cannot tell", "it may be longer by 5% of a decode"),
    ],
)
def test_longer_says_what_of_it_is_open(on, off, step_ms, answer, text):
    values = {"a": iter(on), "b": iter(off)}
    samples = [
        Sample(f"{case}{number}", case, number // 2 + 1, {RETURN: next(values[case])})
        for number, case in enumerate(ORDER)
    ]
    found = findings.longer(findings.Arms("a", "b", samples, step_ms, Rules(0.05)))
    assert found.answer == answer
    assert text in found.text

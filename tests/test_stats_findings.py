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

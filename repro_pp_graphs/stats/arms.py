"""Launches, and the values that two cases have of a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """One launch: its values by metric, in the order in which the launches ran.

    `fault`: why it does not count (it failed, or its GPU did); empty where it does.
    """

    label: str
    case: str
    round: int
    values: dict[str, float]
    session: int = 1
    fault: str = ""


class Arms(NamedTuple):
    """The values of two cases in the order of their launches."""

    labels: list[str]
    values: list[float]
    is_a: list[bool]
    sessions: list[int]

    def of(self, first: bool) -> dict[str, float]:
        found = zip(self.labels, self.values, self.is_a, strict=True)
        return {label: value for label, value, is_a in found if is_a is first}

    def without(self, places: Sequence[int]) -> Arms:
        kept = [at for at in range(len(self.labels)) if at not in places]
        return Arms(
            [self.labels[at] for at in kept],
            [self.values[at] for at in kept],
            [self.is_a[at] for at in kept],
            [self.sessions[at] for at in kept],
        )


def nothing(samples: Sequence[Sample]) -> str:
    """That no launch of a run has any value; empty where one has."""
    return "" if any(sample.values for sample in samples) else "nothing was measured"


def arms_of(a: str, samples: Sequence[Sample], name: str) -> Arms:
    """What case `a` and the other one have of the metric `name`, of the launches that have it."""
    having = [sample for sample in samples if name in sample.values]
    return Arms(
        [sample.label for sample in having],
        [sample.values[name] for sample in having],
        [sample.case == a for sample in having],
        [sample.session for sample in having],
    )

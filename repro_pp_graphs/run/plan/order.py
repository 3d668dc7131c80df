"""The order of launches: rounds in balanced blocks, so that drift cancels.

A round launches every case once. A block has as many rounds as there are cases, and in it every
case has every place once: with two cases A B B A, or B A A B (a Williams design; of an odd number
of cases every second block is mirrored, so that each case follows each other as often). Which case
a block starts with is drawn.
"""

from __future__ import annotations

import random
from typing import NamedTuple

ENOUGH_ROUNDS = 4  # for a verdict: fewer show effects of more than 10 % only
LEAST_ROUNDS = 3  # with fewer nothing is concluded


class Arm(NamedTuple):
    """What is compared: a case, or one of the two labels of a case that is compared with itself."""

    name: str  # as in results
    case: str  # of server_args_<case>.txt
    suffix: str = ""  # of the label
    place: int = 0  # among the arms as they were asked for, from 1


class Turn(NamedTuple):
    """One launch of the order."""

    block: int  # 1 for the first
    round: int  # of the run, 1 for the first
    arm: Arm

    @property
    def suffix(self) -> str:
        """What follows the label that the case's file gives."""
        return self.arm.suffix + (f"_r{self.round}" if self.round > 1 else "")


def arms_of(cases: list[str], aa: bool) -> list[Arm]:
    """The arms of a run; with `aa` the first case twice."""
    if aa:
        both = enumerate(("aa1", "aa2"), 1)
        return [Arm(f"{cases[0]}_{name}", cases[0], f"_{name}", at) for at, name in both]
    return [Arm(case, case, place=at) for at, case in enumerate(cases, 1)]


def whole_rounds(rounds: int, arms: int) -> int:
    """So many rounds, or the more that complete a block. One round alone is none: it stays."""
    return rounds if rounds == 1 else -(-rounds // arms) * arms


def turns(arms: list[Arm], rounds: int, seed: int | None, began_with_one: bool) -> list[Turn]:
    """Every launch in order. The first block starts as given where the run began with one round;
    without a seed, as in runs of earlier versions, every block does."""
    found = []
    for number in range(rounds):
        block, place = divmod(number, len(arms))
        as_given = seed is None or (began_with_one and block == 0)
        first = list(arms) if as_given else _drawn(arms, f"{seed} {block}")
        row = _square(first)[place]
        mirrored = len(arms) % 2 and block % 2
        found += [Turn(block + 1, number + 1, arm) for arm in (row[::-1] if mirrored else row)]
    return found


def _drawn(arms: list[Arm], seed: str) -> list[Arm]:
    # random() is the same in every version of Python, shuffle() need not be
    source = random.Random(seed)
    return [arm for _, arm in sorted((source.random(), arm) for arm in arms)]


def _square(first: list[Arm]) -> list[list[Arm]]:
    """Rows that begin with `first`; every arm stands once at every place."""
    size = len(first)
    places = [(number + 1) // 2 if number % 2 else -(number // 2) for number in range(size)]
    by_number = {place % size: arm for place, arm in zip(places, first, strict=True)}
    return [[by_number[(place + row) % size] for place in places] for row in range(size)]

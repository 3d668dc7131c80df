"""A user's own command, without some of its options: standard library only, as options.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

# options, and how many values each has
OF_A_PLAN = {"--dry-run": 0, "--gpus": 1}
OF_A_SESSION = {"--resume": 0, **OF_A_PLAN}
OF_THIS_MACHINE = {"--cpu": 0, "--out": 1, "--python": 1, "--port": 1}


def without(command: Sequence[str], options: Mapping[str, int]) -> list[str]:
    """A command without these options and their values, also as `--option=value`."""
    found, given = [], iter(command)
    for word in given:
        name, _, value = word.partition("=")
        option = f"--{name[2:].replace('_', '-')}" if name.startswith("--") else name
        if option not in options:
            found.append(word)
        elif options[option] and not value:
            next(given, None)
    return found


def names_a_place(command: Sequence[str]) -> bool:
    """Whether --out is a place of this machine: a whole path, no folder of the checkout."""
    given = [word.partition("=")[2] for word in command if word.startswith("--out=")]
    given += [value for name, value in pairwise(command) if name == "--out"]
    return any(each.startswith(("/", "~", "..")) for each in given)

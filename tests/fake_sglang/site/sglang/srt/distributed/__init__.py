"""The pipeline group of a rank process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Group:
    rank_in_group: int = 0
    world_size: int = 1


_GROUP = Group()


def get_pp_group() -> Group:
    return _GROUP

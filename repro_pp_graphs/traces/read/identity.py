"""Which rank a trace file is of: by its name, by the distributedInfo inside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from repro_pp_graphs.traces.read.numbers import number

SUFFIXES = (".json.gz", ".json")
MERGED_SUFFIXES = tuple("_chrome_trace" + suffix for suffix in SUFFIXES)
PART = re.compile(r"-(TP|PP|DP|EP|CP)-?(\d{1,5})(?=[-_.]|$)")
# More ranks than that no server has: a rank beyond is damage.
MOST_RANKS = 1 << 16
# The groups that every rank makes first: torch's, then the server's of all ranks (for NCCL, gloo).
WORLD_GROUPS = 3


class Identity(NamedTuple):
    """A rank among pp_size x tp_size; global rank = pp * tp_size + tp, as sglang numbers them.

    `named` are the kinds of rank the file's name states (releases before 0.5.3.post2 left PP out).
    """

    case: str
    pp: int
    tp: int
    pp_size: int
    tp_size: int
    named: frozenset[str] = frozenset()
    world_size: int | None = None
    rank_known: bool = True  # the name or distributedInfo says which PP rank it is

    @property
    def rank(self) -> int:
        return self.pp * self.tp_size + self.tp

    @property
    def next_rank(self) -> int:
        return (self.pp + 1) % self.pp_size * self.tp_size + self.tp

    @property
    def previous_rank(self) -> int:
        return (self.pp - 1) % self.pp_size * self.tp_size + self.tp

    def checked(self, info: object) -> tuple[Identity, list[str]]:
        """Who the file says it is; distributedInfo wins, a disagreement is reported."""
        facts = info if isinstance(info, dict) else {}
        rank, world = number(facts.get("rank")), number(facts.get("world_size"))
        if rank is None or not 0 <= rank < (world or MOST_RANKS) <= MOST_RANKS:
            named, alone = "PP" in self.named, self.pp_size == 1 == self.tp_size
            no_rank = f"distributedInfo says rank {rank} of {world}, which cannot be: ignored"
            unknown = "its PP rank is neither in its name nor in distributedInfo"
            problems = [no_rank] * (rank is not None) + [unknown] * (not named and not alone)
            return self._replace(rank_known=named), problems
        tp_size = tp_size_of(facts, rank, world or 0) or self.tp_size
        said = self._replace(
            pp=rank // tp_size,
            tp=rank % tp_size,
            pp_size=max(self.pp_size, (world or 0) // tp_size),
            tp_size=tp_size,
            world_size=world,
        )
        claims = (("PP", self.pp, said.pp), ("TP", self.tp, said.tp))
        wrong = [
            f"{kind} {name}, distributedInfo {inside}"
            for kind, name, inside in claims
            if kind in self.named and name != inside
        ]
        if wrong:
            return said, [f"the name says {'; '.join(wrong)}: used distributedInfo"]
        return said, []


def tp_size_of(facts: dict[str, Any], rank: int, world: int) -> int | None:
    """How many ranks share a PP rank, by the process groups of distributedInfo; None if they do
    not show it.

    sglang names its groups from 0.5.20 on (`pp:device`); before, the TP group is the first that it
    makes after those of all ranks.
    """
    config = facts.get("pg_config")
    groups = [_group(each) for each in config] if isinstance(config, list) else []
    of_pp = [ranks for name, ranks in groups if name == "pp" and rank in ranks]
    if of_pp and world % len(of_pp[0]) == 0:
        return world // len(of_pp[0]) or None
    if [ranks for _, ranks in groups[:WORLD_GROUPS]] != [list(range(world))] * WORLD_GROUPS:
        return None
    later = [ranks for name, ranks in groups[WORLD_GROUPS:] if name in ("undefined", "tp")]
    size = len(later[0]) if later else 0
    begin = rank // size * size if size else 0
    return size if size and later[0] == list(range(begin, begin + size)) else None


def _group(config: object) -> tuple[str, list[int | None]]:
    """What a process group is for, as far as it says so, and its ranks."""
    facts = config if isinstance(config, dict) else {}
    ranks = facts.get("ranks")
    numbers = [number(rank) for rank in ranks] if isinstance(ranks, list) else []
    return str(facts.get("pg_desc", "")).split(":")[0], numbers


def is_trace(path: Path) -> bool:
    """Whether a file in a folder is a rank's trace: not `merged-...` (sglang's merger's), nor
    `..._chrome_trace.json` (ours)."""
    name = path.name
    merged = name.startswith("merged-") or name.endswith(MERGED_SUFFIXES)
    return name.endswith(SUFFIXES) and not merged and path.is_file()


def parts(path: Path) -> tuple[str, dict[str, int]]:
    """A file's case (its name without ranks and suffix) and its ranks by kind."""
    name = path.name
    for suffix in (*(".trace" + end for end in SUFFIXES), *SUFFIXES):
        name = name.removesuffix(suffix)
    ranks = {kind: int(number) for kind, number in PART.findall(name)}
    return PART.sub("", name), ranks


def identify(paths: list[Path]) -> list[tuple[Path, Identity]]:
    """Give each file an identity by its name alone; sizes are those the names imply."""
    named = [(path, *parts(path)) for path in paths]
    pp_size = 1 + max((ranks.get("PP", 0) for _, _, ranks in named), default=0)
    tp_size = 1 + max((ranks.get("TP", 0) for _, _, ranks in named), default=0)
    return [
        (
            path,
            Identity(
                case, ranks.get("PP", 0), ranks.get("TP", 0), pp_size, tp_size, frozenset(ranks)
            ),
        )
        for path, case, ranks in named
    ]

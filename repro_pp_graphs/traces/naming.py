"""Which rank a trace file is of: by its name, by the distributedInfo inside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

SUFFIXES = (".json.gz", ".json")
MERGED_SUFFIXES = tuple("_chrome_trace" + suffix for suffix in SUFFIXES)
PART = re.compile(r"-(TP|PP|DP|EP|CP)-?(\d+)(?=[-_.]|$)")


@dataclass(frozen=True, slots=True)
class Identity:
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
        if not isinstance(info, dict) or not isinstance(info.get("rank"), int):
            known = "PP" in self.named or self.pp_size == 1 == self.tp_size
            return self, [] if known else ["neither name nor distributedInfo tells the PP rank"]
        world = info.get("world_size")
        world = world if isinstance(world, int) else None
        said = replace(
            self,
            pp=info["rank"] // self.tp_size,
            tp=info["rank"] % self.tp_size,
            pp_size=max(self.pp_size, (world or 0) // self.tp_size),
            world_size=world,
        )
        claims = (("PP", self.pp, said.pp), ("TP", self.tp, said.tp))
        wrong = [
            f"{kind} {name}, distributedInfo {inside}"
            for kind, name, inside in claims
            if kind in self.named and name != inside
        ]
        if wrong:
            return said, [f"the name says {'; '.join(wrong)}: took distributedInfo"]
        return said, []


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

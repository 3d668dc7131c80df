"""Which arguments a release of sglang accepts, and what it calls the ones it renamed."""

from __future__ import annotations

import difflib
import re

from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.release.installed import Release

# two spellings of sizes and paths, that argument files mix
SYNONYMS = (
    ("--pp-size", "--pipeline-parallel-size"),
    ("--tp-size", "--tensor-parallel-size"),
    ("--dp-size", "--data-parallel-size"),
    ("--model-path", "--model"),
)
# old and new name of one argument; either is rewritten to the one that the release knows
RENAMED = (
    ("--cuda-graph-max-bs", "--cuda-graph-max-bs-decode"),
    ("--cuda-graph-bs", "--cuda-graph-bs-decode"),
    ("--pp-max-micro-batch-size", "--max-micro-batch-size"),
    *SYNONYMS,
)


LEAST_ALIKE = 0.7  # of a suggestion, as difflib has it: without the dashes that all begin with
LEAST_LETTERS = 4


class FlagError(ValueError):
    """An argument that the release does not know, or takes otherwise; the message says how."""


def fit(args: ServerArgs, release: Release) -> tuple[ServerArgs, list[str]]:
    """Rewrite renamed arguments for this release; returns them and a note for each rewrite.

    Raises FlagError for an argument that the release knows under no name, or takes otherwise.
    """
    fitted = ServerArgs(env=args.env, python=args.python, label=args.label)
    notes = []
    for flag, values in args.flags.items():
        place = args.places.get(flag, "")
        name = _known_name(flag, release, f"{place}: " if place else "")
        if name != flag and not _same_option(name, flag):
            notes.append(f"{flag} is passed as {name}, its name in sglang {release.version}")
        rule = release.rules.get(name)
        if rule and (objection := rule.objection(values)):
            where = place or "server_args_*.txt"
            raise FlagError(f"{flag}: {objection}, in sglang {release.version}; mend it in {where}")
        fitted.flags[name] = values
    return fitted, notes


def renamed(note: str) -> tuple[str, str] | None:
    """The release's name and the file's, of a note that `fit` gives on a rewrite; else None."""
    found = re.match(r"(--\S+) is passed as (--\S+), its name in ", note)
    return (found[2], found[1]) if found else None


def _same_option(one: str, other: str) -> bool:
    # they name the same in every release: not worth a note
    return any({one, other} == set(pair) for pair in SYNONYMS)


def _known_name(flag: str, release: Release, where: str) -> str:
    if flag in release.flags:
        return flag
    for pair in RENAMED:
        if flag in pair:
            for name in pair:
                if name in release.flags:
                    return name
    near = _nearest(flag, release)
    hint = f"did you mean {near}?" if near else "see --help of sglang.launch_server"
    raise FlagError(f"{where}{flag}: sglang {release.version} has no such argument; {hint}")


def _nearest(flag: str, release: Release) -> str:
    """The argument that is written most alike, or begins so; empty where none is."""
    names = {name.lstrip("-"): name for name in sorted(release.flags)}
    word = flag.lstrip("-")
    near = difflib.get_close_matches(word, names, n=1, cutoff=LEAST_ALIKE)
    begin = [name for name in names if len(word) >= LEAST_LETTERS and name.startswith(word)]
    return next((names[name] for name in [*near, *begin]), "")

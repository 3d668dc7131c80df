"""Which arguments a release of sglang accepts, and what it calls the ones it renamed."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from repro_pp_graphs.server.argfile import ServerArgs

# old and new name of one argument; either is rewritten to the one that the release knows
RENAMED = (
    ("--cuda-graph-max-bs", "--cuda-graph-max-bs-decode"),
    ("--cuda-graph-bs", "--cuda-graph-bs-decode"),
    ("--pp-size", "--pipeline-parallel-size"),
    ("--tp-size", "--tensor-parallel-size"),
    ("--dp-size", "--data-parallel-size"),
    ("--pp-max-micro-batch-size", "--max-micro-batch-size"),
    ("--model-path", "--model"),
)

PROBE = """
import os, sys
sys.path.insert(0, {root!r})
from repro_pp_graphs.server import shims
shims.install_all()
import argparse, importlib.metadata, importlib.util, json
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
flags = sorted(name for action in parser._actions for name in action.option_strings)
place = importlib.util.find_spec("sglang").submodule_search_locations[0]
version = importlib.metadata.version("sglang")
print("PROBE" + json.dumps({{"version": version, "flags": flags, "place": place}}))
"""


class FlagError(ValueError):
    """An argument that the release does not know; the message names a near one."""


class ProbeError(RuntimeError):
    """The interpreter cannot import sglang; the message holds its last line."""


@dataclass(frozen=True)
class Release:
    """One interpreter's sglang: version, accepted command-line flags, package folder."""

    version: str
    flags: frozenset[str]
    place: Path


def release_from_json(text: str) -> Release:
    """The inverse of release_to_json. Raises KeyError where an older harness wrote it."""
    found = json.loads(text)
    return Release(found["version"], frozenset(found["flags"]), Path(found["place"]))


def release_to_json(release: Release) -> str:
    """A release as one line."""
    found = {"version": release.version, "flags": sorted(release.flags)}
    return json.dumps({**found, "place": str(release.place)})


def version_numbers(version: str) -> tuple[int, ...]:
    """`0.5.10.post1`, `0.5.10rc0`, `0.5.10+cu130` -> (0, 5, 10); empty for no version."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def probe(python: str, env: dict[str, str], timeout_s: float = 180.0) -> Release:
    """Ask `python` for its sglang's version, flags and folder (imports sglang: 5 to 20 s).

    Raises ProbeError where sglang cannot be imported there.
    """
    root = str(Path(__file__).resolve().parents[2])
    try:
        done = subprocess.run(
            [python, "-c", PROBE.format(root=root)],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProbeError(f"{python}: {error}") from None
    for line in done.stdout.splitlines():
        if line.startswith("PROBE"):
            return release_from_json(line[len("PROBE") :])
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise ProbeError(f"{python}: sglang cannot be imported: {lines[-1] if lines else 'no output'}")


def fit(args: ServerArgs, release: Release) -> tuple[ServerArgs, list[str]]:
    """Rewrite renamed arguments for this release; returns them and a note for each rewrite.

    Raises FlagError for an argument that the release knows under no name.
    """
    fitted = ServerArgs(env=args.env, python=args.python, label=args.label)
    notes = []
    for flag, values in args.flags.items():
        name = _known_name(flag, release)
        if name != flag and not _same_option(name, flag):
            notes.append(f"{flag} is {name} in sglang {release.version}")
        fitted.flags[name] = values
    return fitted, notes


def _same_option(one: str, other: str) -> bool:
    # size and path spellings are synonyms in every release: not worth a note
    return any({one, other} == set(pair) and "graph" not in one for pair in RENAMED)


def _known_name(flag: str, release: Release) -> str:
    if flag in release.flags:
        return flag
    for pair in RENAMED:
        if flag in pair:
            for name in pair:
                if name in release.flags:
                    return name
    near = difflib.get_close_matches(flag, release.flags, n=1)
    hint = f"did you mean {near[0]}?" if near else "see --help of sglang.launch_server"
    raise FlagError(f"{flag}: sglang {release.version} has no such argument; {hint}")


class Prober(Protocol):
    """Asks an interpreter for its release; None where it holds no sglang yet (--dry-run)."""

    def __call__(self, python: str, env: dict[str, str]) -> Release | None: ...

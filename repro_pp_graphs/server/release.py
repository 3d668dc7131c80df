"""An installed sglang: its version, the arguments it takes; asked once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from repro_pp_graphs import files
from repro_pp_graphs.terminal import say

PROBE = """
import os, sys
sys.path.insert(0, {root!r})
from repro_pp_graphs.server import shims
shims.install_all()
import argparse, importlib.metadata, importlib.util, json
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
own = (argparse._StoreAction, argparse._StoreTrueAction, argparse._StoreFalseAction)
rules = {{}}
for action in parser._actions:
    rule = None
    if isinstance(action, own):
        kind = getattr(action.type, "__name__", "") if action.type in (int, float) else ""
        choices = [str(choice) for choice in action.choices or ()]
        nargs = "1" if action.nargs is None else str(action.nargs)
        rule = {{"values": nargs, "kind": kind, "choices": choices}}
    rules |= {{name: rule for name in action.option_strings}}
place = importlib.util.find_spec("sglang").submodule_search_locations[0]
version = importlib.metadata.version("sglang")
print("PROBE" + json.dumps({{"version": version, "rules": rules, "place": place}}))
"""

# what identifies an installed sglang without importing it
IDENTITY = """
import importlib.metadata, importlib.util, os
spec = importlib.util.find_spec("sglang")
place = list(spec.submodule_search_locations)[0]
stamp = os.stat(os.path.join(place, "srt", "server_args.py")).st_mtime_ns
print(importlib.metadata.version("sglang"), place, stamp)
"""


ASK_LIMIT_S = 60.0  # for an interpreter to say what it has


class ProbeError(RuntimeError):
    """The interpreter cannot import sglang; the message holds its last line."""


@dataclass(frozen=True)
class Rule:
    """What an argument takes: how many values ("0", "1", "+", ...), of which type, which ones."""

    values: str
    kind: str = ""  # int, float, or anything
    choices: tuple[str, ...] = ()

    def objection(self, given: list[str]) -> str:
        """What is wrong with the values given; empty where nothing is."""
        if self.values.isdigit() and len(given) != int(self.values):
            return f"takes {self.values.replace('0', 'no')} value(s), {len(given)} given"
        if self.values == "+" and not given:
            return "takes a value or more, none given"
        for value in given:
            if self.kind and not _is_a(self.kind, value):
                return f"'{value}' is not {'a whole number' if self.kind == 'int' else 'a number'}"
            if self.choices and value not in self.choices:
                return f"'{value}' is none of {', '.join(self.choices)}"
        return ""


def _is_a(kind: str, text: str) -> bool:
    try:
        {"int": int, "float": float}[kind](text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Release:
    """One interpreter's sglang: version, accepted command-line flags, package folder, and what
    the flags take, as far as that is known."""

    version: str
    flags: frozenset[str]
    place: Path
    rules: Mapping[str, Rule] = field(default_factory=dict)


ANOTHER = "name another interpreter (--python)"


def release_from_json(text: str) -> Release:
    """The inverse of release_to_json. Raises KeyError where an older harness wrote it."""
    found = json.loads(text)
    rules = {
        name: Rule(rule["values"], rule["kind"], tuple(rule["choices"]))
        for name, rule in found["rules"].items()
        if rule
    }
    return Release(found["version"], frozenset(found["rules"]), Path(found["place"]), rules)


def release_to_json(release: Release) -> str:
    """A release as one line."""
    rules = {name: release.rules.get(name) for name in sorted(release.flags)}
    stored = {name: rule and asdict(rule) for name, rule in rules.items()}
    return json.dumps({"version": release.version, "rules": stored, "place": str(release.place)})


def version_numbers(version: str) -> tuple[int, ...]:
    """`0.5.10.post1`, `0.5.10rc0`, `0.5.10+cu130` -> (0, 5, 10); empty for no version."""
    found = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9})*", version)
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
        raise ProbeError(f"{python}: {error}; {ANOTHER}") from None
    for line in done.stdout.splitlines():
        if line.startswith("PROBE"):
            return release_from_json(line[len("PROBE") :])
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = lines[-1] if lines else "no output"
    raise ProbeError(f"{python}: sglang cannot be imported ({said}): mend it there, or {ANOTHER}")


class Prober(Protocol):
    """Asks an interpreter for its release; None where it holds no sglang yet (--dry-run)."""

    def __call__(self, python: str, env: dict[str, str]) -> Release | None: ...


class CachedProbe:
    """`probe`, remembered in .state/releases: importing sglang takes 5 to 20 s."""

    def __init__(self, folder: Path, dry_run: bool) -> None:
        self.folder = folder
        self.dry_run = dry_run
        self._found: dict[str, Release | None] = {}

    def __call__(self, python: str, env: dict[str, str]) -> Release | None:
        """The release of `python`; None for one without sglang under --dry-run."""
        if python not in self._found:
            self._found[python] = self._ask(python, env)
        return self._found[python]

    def _ask(self, python: str, env: dict[str, str]) -> Release | None:
        try:
            done = subprocess.run(
                [python, "-c", IDENTITY],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ASK_LIMIT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            done = subprocess.CompletedProcess([], 1, "", str(error))
        # what is no Python may succeed, and print anything
        if done.returncode != 0 or not re.fullmatch(r"\S+ /.* \d+\n", done.stdout):
            if self.dry_run:
                return None
            raise ProbeError(f"{python}: no sglang there; {ANOTHER}")
        name = hashlib.sha256((python + done.stdout).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.json"
        with contextlib.suppress(OSError, ValueError, KeyError):
            return release_from_json(path.read_text(encoding="utf-8"))
        version = done.stdout.split()[0]
        say(f"  reading which arguments sglang {version} takes (once for each environment)")
        release = probe(python, env)
        with contextlib.suppress(OSError):  # a checkout that is read-only: asked again next time
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, release_to_json(release))
        return release

"""An installed sglang: its version, the arguments it takes; asked once and remembered."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from repro_pp_graphs import files
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.terminal import say

PROBE = """
import gc, os, sys
gc.disable()  # all that sglang imports lives to the end
sys.path.insert(0, {root!r})
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server import shims
shims.install_all()
import argparse, importlib.util, json

def stated():  # its version, as importlib.metadata has it, which takes 25 ms to import
    for folder in sys.path:
        try:
            for name in sorted(os.listdir(folder or ".")):
                if name.startswith("sglang-") and name.endswith(".dist-info"):
                    with open(os.path.join(folder, name, "METADATA"), encoding="utf-8") as file:
                        for line in file:
                            if line.startswith("Version: "):
                                return line[len("Version: "):].strip()
        except OSError:  # no folder, or one that may not be read
            continue
    import importlib.metadata  # installed in another way
    return importlib.metadata.version("sglang")

def cpu_torch():
    build = getattr(sys.modules.get("torch"), "version", None)
    alone = build and not (getattr(build, "cuda", 0) or getattr(build, "hip", 0))
    return str(build.__version__) if alone else ""

try:
    from sglang.srt.server_args import ServerArgs
except Exception:
    print("CPU TORCH" + cpu_torch() * ("cpu" not in shim_names.names_in(os.environ)))
    gc.freeze()  # nothing is looked through once more as Python ends
    raise
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
own = (argparse._StoreAction, argparse._StoreTrueAction, argparse._StoreFalseAction)
rules = {{}}
for action in parser._actions:
    rule = None
    if isinstance(action, own):
        kind = getattr(action.type, "__name__", "") if action.type in (int, float) else ""
        choices = [str(choice) for choice in action.choices or ()]
        if isinstance(action.choices, (set, frozenset)):
            choices.sort()  # else in another order each time
        nargs = "1" if action.nargs is None else str(action.nargs)
        rule = {{"values": nargs, "kind": kind, "choices": choices}}
    rules |= {{name: rule for name in action.option_strings}}
place = importlib.util.find_spec("sglang").submodule_search_locations[0]
found = {{"version": stated(), "rules": rules, "place": place, "cpu_torch": cpu_torch()}}
print("PROBE" + json.dumps(found))
gc.freeze()
"""

# identifies an installed sglang without importing it: found as importlib.util does, the version
# in the name of the folder with its facts, as importlib.metadata does; each of the two takes longer
# to import than all else here
IDENTITY = """
import os, sys
specs = (f.find_spec("sglang", None) for f in sys.meta_path if hasattr(f, "find_spec"))
spec = next(filter(None, specs))
place = list(spec.submodule_search_locations)[0]
stamp = os.stat(os.path.join(place, "srt", "server_args.py")).st_mtime_ns
version = ""
for folder in sys.path:
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        continue
    for name in names:
        stem, kind = os.path.splitext(name)
        if not version and stem.startswith("sglang-") and kind == ".dist-info":
            version = stem[len("sglang-"):]
if not version:  # installed in another way
    import importlib.metadata
    version = importlib.metadata.version("sglang")
print(version, place, stamp)
"""


ASK_LIMIT_S = 60.0  # for an interpreter to say what it has


class ProbeError(RuntimeError):
    """The interpreter cannot import sglang; the message holds its last line."""


class Rule(NamedTuple):
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


class Release(NamedTuple):
    """One interpreter's sglang: version, accepted command-line flags, package folder, and what
    the flags take, as far as that is known. `cpu_torch`: the version of its torch where that is
    built for the CPU alone, else empty."""

    version: str
    flags: frozenset[str]
    place: Path
    rules: Mapping[str, Rule] = MappingProxyType({})
    cpu_torch: str = ""


ANOTHER = "name another (--python), or have an environment made here (--release)"


def without_gpus(python: str, cpu_torch: str, said: str = "") -> str:
    """That an interpreter serves no GPU, and what to do. `said`: how its sglang failed to load."""
    loading = f" (sglang does not load: {said})" if said else ""
    return (
        f"{python}: its torch {cpu_torch} is built for the CPU alone, which serves no GPU"
        f"{loading}: name an interpreter that has a CUDA build (--python), or take --release V in "
        "its place; --cpu rehearses with this one"
    )


def release_from_json(text: str) -> Release:
    """The inverse of release_to_json. Raises KeyError where an older harness wrote it."""
    found = json.loads(text)
    rules = {
        name: Rule(rule["values"], rule["kind"], tuple(rule["choices"]))
        for name, rule in found["rules"].items()
        if rule
    }
    place, flags = Path(found["place"]), frozenset(found["rules"])
    return Release(found["version"], flags, place, rules, found.get("cpu_torch", ""))


def release_to_json(release: Release) -> str:
    """A release as one line."""
    rules = {name: release.rules.get(name) for name in sorted(release.flags)}
    stored = {name: rule and rule._asdict() for name, rule in rules.items()}
    found = {"version": release.version, "rules": stored, "place": str(release.place)}
    return json.dumps({**found, "cpu_torch": release.cpu_torch})


def version_numbers(version: str) -> tuple[int, ...]:
    """`0.5.10.post1`, `0.5.10rc0`, `0.5.10+cu130` -> (0, 5, 10); empty for no version."""
    found = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9})*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def probe(python: str, env: dict[str, str], timeout_s: float = 180.0) -> Release:
    """Ask `python` for its sglang's version, flags and folder (imports sglang: 5 to 20 s), in the
    environment of a server with `env`, its shims among them.

    Raises ProbeError where sglang cannot be imported so.
    """
    import subprocess  # noqa: PLC0415 - 4 ms, and most steps ask no interpreter

    root = str(Path(__file__).resolve().parents[3])
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
    if torch := re.search(r"^CPU TORCH(.+)$", done.stdout, re.M):
        raise ProbeError(without_gpus(python, torch[1], said))
    raise ProbeError(f"{python}: sglang cannot be imported ({said}): mend it there, or {ANOTHER}")


class Prober(Protocol):
    """Asks an interpreter for its release; None where it holds no sglang yet (--dry-run)."""

    def __call__(self, python: str, env: dict[str, str]) -> Release | None: ...


class CachedProbe:
    """`probe`, remembered in .state/releases: importing sglang takes 5 to 20 s.

    dry_run: an interpreter without sglang is no error. assumed: nor is one whose sglang loads on
    this machine as a rehearsal does alone, as the GPUs of the plan are those of another.
    """

    def __init__(self, folder: Path, dry_run: bool, assumed: bool = False) -> None:
        self.folder = folder
        self.dry_run = dry_run
        self.assumed = assumed
        self._found: dict[tuple[str, str], Release | None] = {}

    def __call__(self, python: str, env: dict[str, str]) -> Release | None:
        """The release of `python` in the environment of a server with `env`; None for one without
        sglang under --dry-run. Raises ProbeError."""
        env = shim_names.for_import(env)
        key = (python, json.dumps(env, sort_keys=True))
        if key not in self._found:
            self._found[key] = self._ask(python, env)
        return self._found[key]

    def _ask(self, python: str, env: dict[str, str]) -> Release | None:
        identity = _identity(python, env)
        if not identity:
            if self.dry_run:
                return None
            raise ProbeError(f"{python}: no sglang there; {ANOTHER}")
        ways = [env, *[shim_names.for_cpu(env)] * self.assumed]
        for way in ways:
            with contextlib.suppress(OSError, ValueError, KeyError):
                return release_from_json(self._path(python, identity, way).read_text("utf-8"))
        version = identity.split()[0]
        say(f"  reading which arguments sglang {version} takes (once for each environment)")
        for way in ways:
            try:
                release = probe(python, way)
            except ProbeError:
                if way is ways[-1]:
                    raise
                continue
            break
        with contextlib.suppress(OSError):  # a checkout that is read-only: asked again next time
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_whole(self._path(python, identity, way), release_to_json(release))
        return release

    def _path(self, python: str, identity: str, env: dict[str, str]) -> Path:
        """Where an answer is kept: another environment may import another sglang, or none."""
        import hashlib  # noqa: PLC0415 - loads OpenSSL, and most steps need none

        text = json.dumps([python, identity, env], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _identity(python: str, env: dict[str, str]) -> str:
    """What identifies its sglang: `version folder stamp`; empty where it has none."""
    import subprocess  # noqa: PLC0415

    try:
        done = subprocess.run(
            [python, "-c", IDENTITY],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_LIMIT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    # what is no Python may succeed, and print anything
    whole = done.returncode == 0 and re.fullmatch(r"\S+ /.* \d+\n", done.stdout)
    return done.stdout if whole else ""

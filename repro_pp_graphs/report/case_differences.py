"""What differs between the cases of a run: the servers' resolved arguments, shims, variables.

That graphs differ is the question; anything besides makes the comparison one of two things.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from repro_pp_graphs.environment import masking
from repro_pp_graphs.report.source import Launched, Source
from repro_pp_graphs.report.told_apart import told_apart
from repro_pp_graphs.server import shim_names

# of /server_info: they move from launch to launch, or repeat the other keys
_MOVING = frozenset({"startup_time", "launch_command", "internal_states", "status", "port"})
_NESTED = frozenset({"cuda_graph_config"})  # the only nested value that is an argument
_GRAPHS = "cuda_graph"
NOT_KNOWN = "not known"  # of a case whose servers never answered


class Difference(msgspec.Struct, frozen=True):
    """One argument, a value for each case; `graphs`: it is about CUDA graphs."""

    name: str
    values: list[str]
    graphs: bool


def between_cases(source: Source) -> list[Difference]:
    """What the cases' servers ran with that is not the same in all, graphs first."""
    by_case = [
        [each for each in source.launches if each.case == number]
        for number in range(len(source.cases))
    ]
    if len(by_case) < 2 or not all(by_case):
        return []
    answered = [any(each.server_info for each in launches) for launches in by_case]
    given = [_agreed(launches, _given) for launches in by_case]
    if not all(answered):  # what a server would have resolved is not known
        for one, launches in zip(given, by_case, strict=True):
            one["arguments"] = _arguments(launches[0])
    found = _told(given, [True] * len(given))
    if sum(answered) > 1:
        found += _told([_agreed(launches, _resolved) for launches in by_case], answered)
    return sorted(found, key=lambda each: not each.graphs)


def _told(known: list[dict[str, Any]], of: list[bool]) -> list[Difference]:
    """The names whose values differ among the cases `of`; of the others they are not known. What a
    case does not have is a difference too: a shim, a variable."""
    found = []
    for name in dict.fromkeys(name for one in known for name in one):
        texts = [
            _text(one.get(name)) if is_of else NOT_KNOWN
            for one, is_of in zip(known, of, strict=True)
        ]
        if len(set(texts) - {NOT_KNOWN}) > 1:
            found.append(Difference(name, told_apart(texts), graphs=_GRAPHS in name))
    return found


def settings_of(launches: list[Launched]) -> dict[str, str]:
    """What the launches of a case all ran with, as text, whole."""
    settings = _agreed(launches, lambda launch: _resolved(launch) | _given(launch))
    return {name: _text(value) for name, value in settings.items()}


@lru_cache(maxsize=1)
def _masker() -> masking.Masker:
    return masking.of_this_process(people=False)


def _resolved(launch: Launched) -> dict[str, Any]:
    """The arguments of one launch as its server resolved them; those it was started with where it
    never answered."""
    masker = _masker()
    info: dict[str, Any] = {}
    for key, value in launch.server_info.items():
        if key in _NESTED:
            info |= _flat(key, masker.json(value, key))
        elif key not in _MOVING and not isinstance(value, dict):
            info[key] = masker.json(value, key)
    return info or {"arguments": _arguments(launch)}


def _arguments(launch: Launched) -> str:
    return str(_masker().json(" ".join(launch.summary.server_args), "arguments"))


def _given(launch: Launched) -> dict[str, Any]:
    """The shims and variables that a launch was started with."""
    info: dict[str, Any] = {f"shim {name}": "yes" for name in shim_names.names_in(launch.env)}
    for name, value in launch.env.items():
        if name != shim_names.ENV_NAME:
            info[f"{name} (variable)"] = masking.excerpt(f"{name}={value}").partition("=")[2]
    return info


def _flat(name: str, value: object) -> dict[str, Any]:
    """A nested value as one for each path: `cuda_graph_config.decode.backend`."""
    if not isinstance(value, dict):
        return {name: value}
    found: dict[str, Any] = {}
    for key, each in value.items():
        found |= _flat(f"{name}.{key}", each)
    return found


def _agreed(
    launches: list[Launched], settings: Callable[[Launched], dict[str, Any]]
) -> dict[str, Any]:
    """What all launches of a case have alike, of those whose server answered, if one did: the rest
    moves by itself."""
    first, *others = map(settings, [one for one in launches if one.server_info] or launches)
    return {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}


def _text(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def alike(found: list[Difference], a: int, b: int, graphs: bool) -> bool:
    """Whether two cases, by their index, ran with the same but for what is about CUDA graphs; with
    `graphs`, as both had some, in that too. `found`: what differs between the cases of the run."""
    return all(e.values[a] == e.values[b] or (e.graphs and not graphs) for e in found)


def said_to_differ(source: Source, case: int) -> set[str] | None:
    """What the case of this index was started with that the first was not, or the other way round:
    names as in `Difference`. None where it is not known, or the two are not alike in graphs."""
    started = [next((o for o in source.launches if o.case == each), None) for each in (0, case)]
    here, there = started
    if here is None or there is None:
        return None
    if here.summary.expects_graphs != there.summary.expects_graphs:
        return None
    sets = [_started_with(each) for each in (here, there)]
    return {name for name, _ in sets[0] ^ sets[1]}


def _started_with(launch: Launched) -> set[tuple[str, str]]:
    """Flags and variables, each with its value; a flag by its name in /server_info."""
    found = {(f"shim {name}", "") for name in shim_names.names_in(launch.env)}
    found |= {(f"{name} (variable)", value) for name, value in launch.env.items()}
    flag = ""
    values: list[str] = []
    for word in [*launch.summary.server_args, "--"]:
        if not word.startswith("--"):
            values.append(word)
            continue
        if flag:
            found.add((flag, " ".join(values)))
        name, _, value = word[2:].partition("=")
        flag, values = name.replace("-", "_"), [value] if value else []
    return found


def beside_graphs(found: list[Difference], cases: list[str]) -> dict[str, list[str]]:
    """By case the names of what it has otherwise than the first, besides graphs."""
    names = {
        case: [e.name for e in found if not e.graphs and e.values[at] != e.values[0]]
        for at, case in enumerate(cases)
    }
    return {case: its for case, its in names.items() if its}

"""--resume: is it the same run, and which of its launches are done?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from repro_pp_graphs import launch_record
from repro_pp_graphs.files import BadFile, read_object
from repro_pp_graphs.launch_record import LaunchRecord
from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run_record import Launch, Plan

MOST = 4  # differences that are named one by one
OPTIONS = {
    "engine": "--engine",
    "mode": "mode",
    "batch": "--batch",
    "max_new_tokens": "--max-new-tokens",
    "profile": "profiled",
    "profile_loads": "--profile-loads",
    "profile_steps": "--profile-steps",
    "with_stack": "--with-stack",
    "nsys": "--nsys",
    "ranks_per_gpu": "ranks a GPU",
    "mps": "--mps",
    "sockets": "--sockets",
    "pin_cpus": "--pin-cpus",
}
LAUNCH = {"python": "interpreter", "sglang_version": "sglang", "model": "model"}
MOVING = ("--port",)  # decides nothing that is measured


def differences(then: Plan, now: Plan) -> list[str]:
    """What differs between the run that is to be resumed and the one that is asked for."""
    found = list(_pairs(OPTIONS, vars(then), vars(now)))
    loads = ["; ".join(load.title for load in plan.loads) for plan in (then, now)]
    found += _named("", {"--sweep": loads[0]}, {"--sweep": loads[1]})
    found += _named("machine: ", then.machine, now.machine)
    found += [
        f"{name} has other content"
        if name in then.inputs
        else f"{name} (not recorded then, {digest[:8]} now)"
        for name, digest in now.inputs.items()
        if then.inputs.get(name) != digest
    ]
    labels = [[launch.label for launch in plan.launches] for plan in (then, now)]
    if labels[0] != labels[1][: len(labels[0])]:
        return [*found, f"launches ({', '.join(labels[0])} then; {', '.join(labels[1])} now)"]
    pairs = list(zip(then.launches, now.launches, strict=False))
    said: dict[str, list[str]] = {}
    for first, second in pairs:
        for text in _of_launch(first, second):
            said.setdefault(text, []).append(second.label)
    return found + [
        text if len(its) == len(pairs) else f"{', '.join(its)}: {text}"
        for text, its in said.items()
    ]


def _of_launch(then: Launch, now: Launch) -> list[str]:
    found = list(_pairs(LAUNCH, vars(then), vars(now)))
    if then.sglang_version != now.sglang_version:
        return found  # its arguments are spelt otherwise
    found += _named("", _by_flag(then.args), _by_flag(now.args))
    return found + list(_named("", then.env, now.env))


def _pairs(names: dict[str, str], then: dict[str, object], now: dict[str, object]) -> Iterator[str]:
    for key, name in names.items():
        if then[key] != now[key]:
            yield f"{name} ({then[key]} then, {now[key]} now)"


def _named(head: str, then: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for name in dict.fromkeys([*then, *now]):
        if then.get(name) != now.get(name) and name not in MOVING:
            values = (values.get(name, "none") or "set" for values in (then, now))
            yield "{}{} ({} then, {} now)".format(head, name, *values)


def _by_flag(args: list[str]) -> dict[str, str]:
    """Arguments as {flag: values}."""
    found: dict[str, str] = {}
    flag = ""
    for word in args:
        if word.startswith("--"):
            flag = word
            found[flag] = ""
        else:
            found[flag] = f"{found.get(flag, '')} {word}".strip()
    return found


def refusal(logs: Path, then: Plan, now: Plan) -> str:
    """Why --resume cannot go on; empty where it can."""
    found = differences(then, now)
    if not found:
        return ""
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return (
        f"--resume: not as in {logs}/run.json: {'; '.join(found[:MOST])}{more}; without --resume "
        "that run is moved aside and a new one starts"
    )


def measured(logs: Path, plan: Plan) -> tuple[set[str], list[str]]:
    """The labels of launches that are measured, and a line for each whose files say so and cannot
    be trusted."""
    labels, lines = set(), []
    for launch in plan.launches:
        try:
            known = launch_record.load(logs, launch.label)
            if known is None or known.status != "ok":
                continue
            if known.run_id != plan.run_id:
                raise BadFile(f"{launch_record.path_of(logs, launch.label)} is of another run")
            for name in ["client", "analysis"][: 1 + plan.profile]:
                read_object(logs / f"{launch.label}_{name}.json")
            _check_loads(logs, plan, launch, known)
        except (OSError, BadFile) as error:
            lines.append(f"{launch.label} is measured again: {error}")
        else:
            labels.add(launch.label)
    return labels, lines


def _check_loads(logs: Path, plan: Plan, launch: Launch, known: LaunchRecord) -> None:
    """Raises BadFile or OSError where a load of a sweep is not measured: the loads of a server
    belong together, and are measured again together."""
    for load in plan.loads:
        state = (known.loads or {}).get(load.name)
        if state is None or state.status != "ok":
            raise BadFile(f"{load.title} is not measured")
        read_object(results.client_json(logs, plan.load_label(launch, load.name)))


def done(logs: Path, plan: Plan) -> tuple[set[str], list[str]]:
    """The labels of launches that need not run again, and lines on what runs again that was
    measured, or seems to be.

    A block that lost a launch runs again: of what came in between and after only whole rounds from
    its first on are kept, or drift would not cancel in it.
    """
    labels, lines = measured(logs, plan)
    for number in sorted({launch.block for launch in plan.launches} - {0}):
        block = [launch for launch in plan.launches if launch.block == number]
        kept = _whole_rounds(block, labels)
        dropped = [launch.label for launch in block if launch.label in labels - kept]
        if dropped and len({launch.round for launch in block}) > 1:
            lost = [launch.label for launch in block if launch.label not in labels]
            lines.append(
                f"{', '.join(dropped)}: finished, and measured again with {', '.join(lost)}: "
                "a steady drift of the machine cancels only where the launches of a block "
                f"({len(block)} here) run one after another"
            )
            labels -= set(dropped)
    return labels, lines


def repeated(logs: Path, plan: Plan) -> list[str]:
    """The labels of launches that are measured and run again, as their block lost another."""
    kept = done(logs, plan)[0]
    finished = measured(logs, plan)[0]
    return [one.label for one in plan.launches if one.label in finished - kept]


def _whole_rounds(block: list[Launch], labels: set[str]) -> set[str]:
    """The labels of a block's rounds up to the first that lacks a launch."""
    kept: set[str] = set()
    for number in sorted({launch.round for launch in block}):
        one = {launch.label for launch in block if launch.round == number}
        if not one <= labels:
            break
        kept |= one
    return kept

"""What changed between two outputs of `collect_env.sh --json`: before and after a run."""

from __future__ import annotations

import re
from typing import Collection, Dict, NamedTuple, Tuple

Facts = Dict[str, Dict[str, str]]


class Change(NamedTuple):
    """One fact that differs; gpu is None for a fact of the whole machine."""

    section: str
    key: str
    gpu: int | None
    before: str
    after: str


Place = Tuple[str, str, "int | None"]  # section, key, GPU

_SECTIONS = ("system", "gpus", "network", "software", "environment", "server")
SHAPE = dict.fromkeys(("summary", *_SECTIONS), Dict[str, str])  # of what is read (conform.py)
# moves by itself, or says nothing while the GPU idles, as it does before and after a run
_MOVING = {
    ("system", "load average"),
    ("system", "clock offset"),
    ("gpus", "power.draw"),
    ("gpus", "utilization.gpu"),
    ("gpus", "pstate"),
    ("gpus", "clocks.mem"),
    ("gpus", "pcie.link.gen.current"),
    ("gpus", "clocks_throttle_reasons.active"),  # the older name of clocks_event_reasons
}
_REASONS, _CLOCK = "clocks_event_reasons.active", "clocks.sm"
# of the shell or the job, not of what runs: the interpreter and the machine have facts of their own
_OF_THE_SHELL = re.compile("PATH|(VIRTUAL_ENV|CONDA|SLURM)(_.*)?")
# facts with a line for each thing seen
_LISTS = {("gpus", "processes"), ("gpus", "Xid lines")}
_NOTHING = ("none seen", "none in dmesg", "")
# smaller moves are no news
_AMOUNTS = {
    ("gpus", _CLOCK): 60.0,  # MHz
    ("gpus", "memory.used"): 512.0,  # MiB
    ("gpus", "temperature.gpu"): 20.0,  # degrees
    ("system", "memory"): 8.0,  # GiB available
    ("system", "/dev/shm"): 1.0,  # GiB free
}
_HELD_BACK, _HELD_BACK_US = "held back, ", 100_000.0
_MOST_NUMBERS = 6  # of processes, in a line
_LONG = 60  # characters of a value that a line shows
_NAMES = {
    _CLOCK: "SM clock",
    _REASONS: "throttle",
    "temperature.gpu": "temperature",
    "memory.used": "memory used",
    "driver_version": "driver",
    "this checkout": "checkout of repro_pp_graphs",
}


def spread_out(value: str, gpus: int) -> list[str]:
    """A value for each GPU of what collect_env.sh prints: "a", "a, b, c" or "a (0,1), b (2)"."""
    marked = re.findall(r"(.+?) \((\d+(?:,\d+)*)\)(?:, |$)", value)
    where = {int(gpu): text for text, members in marked for gpu in members.split(",")}
    if sorted(where) == list(range(gpus)):
        return [where[gpu] for gpu in range(gpus)]
    parts = value.split(", ")
    return parts if len(parts) == gpus else [value] * gpus


def _bus_ids(facts: Facts) -> list[str]:
    """Of the host's GPUs, in their order; none where they are not known."""
    known, gpus = facts.get("gpus", {}).get("pci.bus_id", ""), _count(facts)
    return spread_out(known, gpus) if known else []


def _count(facts: Facts) -> int:
    """How many GPUs the host has; 0 where that is not known."""
    found = re.match(r"(\d+) x ", facts.get("summary", {}).get("GPUs", ""))
    return int(found[1]) if found else 0


def _places(facts: Facts) -> dict[Place, str]:
    """Every fact that may be compared, those of GPUs one by one."""
    found: dict[Place, str] = {}
    gpus = _count(facts)
    for section in _SECTIONS:
        for key, value in facts.get(section, {}).items():
            if (section, key) in _MOVING or (section == "server" and key[:8] != "process "):
                continue
            if key.startswith("NCCL in process "):  # "server" has the process
                continue
            if section == "environment" and _OF_THE_SHELL.fullmatch(key):
                continue
            if section != "gpus" or not gpus or "\n" in value or (section, key) in _LISTS:
                found[section, key, None] = value
                continue
            values = spread_out(value, gpus)
            found.update({(section, key, gpu): each for gpu, each in enumerate(values)})
    return found


def _number(text: str) -> float | None:
    """The last number of a text ("125 GiB, 121 GiB available" is 121), or None."""
    found = re.findall(r"\d+(?:\.\d+)?", text)
    return float(found[-1]) if found else None


def _is_small(place: Place, before: str, after: str) -> bool:
    """True for a move that is no news."""
    amount = _AMOUNTS.get(place[:2])
    if place[1].startswith(_HELD_BACK):
        amount = _HELD_BACK_US
    first, last = _number(before), _number(after)
    return None not in (amount, first, last) and abs((last or 0) - (first or 0)) < (amount or 0)


def _only_new(before: str, after: str) -> tuple[str, str]:
    """The lines that one has and the other has not, memory in use left aside."""
    old, new = (
        [re.sub(r", \d+ MiB$", "", line) for line in text.splitlines() if line not in _NOTHING]
        for text in (before, after)
    )
    gone = "; ".join(line for line in old if line not in new)
    come = "; ".join(line for line in new if line not in old)
    return gone or "none", come or "none"


def _others(facts: Facts, own: set[int] | None) -> list[str]:
    """Bus ids of the GPUs that are not `own`, as a kernel's Xid line spells them: 0000:00:06."""
    if own is None:
        return []
    places = _bus_ids(facts)
    return [re.sub(r"^0000|\.\d$", "", each) for n, each in enumerate(places) if n not in own]


def _without(text: str, bus_ids: list[str]) -> str:
    """A list's lines that name none of these GPUs."""
    return "\n".join(
        line for line in text.splitlines() if not any(each in line for each in bus_ids)
    )


def _idle(place: Place, *sides: dict[Place, str]) -> bool:
    """True where a GPU idled at one of the two times, so that its clock means nothing."""
    return any("idle" in side.get((place[0], _REASONS, place[2]), "idle") for side in sides)


def gpus_at(facts: Facts, bus_ids: Collection[str]) -> set[int] | None:
    """The GPUs with these bus ids (as nvidia-smi writes them), by their place in the facts; None
    where one of them is not known, and then any may be meant."""
    places = _bus_ids(facts)
    if not bus_ids or not set(bus_ids) <= set(places):
        return None
    return {place for place, bus_id in enumerate(places) if bus_id in bus_ids}


def between(before: Facts, after: Facts, bus_ids: Collection[str] = ()) -> list[Change] | None:
    """What differs and matters, in the order of the sections; None where the two cannot be
    compared: one is missing, or the later one is of an earlier run.

    `bus_ids`: of the GPUs that the run may use; what changed of the host's others is left out.
    Empty, or not found in the facts: all GPUs count.
    """
    dates = [facts.get("summary", {}).get("date", "") for facts in (before, after)]
    if not all(dates) or dates[1] < dates[0]:
        return None
    old, new = _places(before), _places(after)
    own = gpus_at(before, bus_ids)
    others = _others(before, own)
    found = []
    for place in dict.fromkeys([*old, *new]):
        if own is not None and place[2] is not None and place[2] not in own:
            continue
        first, last = old.get(place, "none"), new.get(place, "none")
        if place[:2] in _LISTS:
            first, last = _only_new(*(_without(text, others) for text in (first, last)))
        if place[1] == _REASONS:  # idling is no reason to worry
            first, last = (text.replace("idle", "none") for text in (first, last))
        if place[1] == _CLOCK and _idle(place, old, new):
            continue
        if place[0] == "server":  # somebody's command line is nobody else's business
            first, last = (text if text == "none" else "running" for text in (first, last))
        if first != last and not _is_small(place, first, last):
            found.append(Change(*place, first, last))
    return sorted(found, key=lambda change: _SECTIONS.index(change.section))


def _line(change: Change) -> str:
    """ "SM clock 1980 MHz -> 1200 MHz"; of a counter by how much it grew, of long values the part
    that differs."""
    key, before, after = change.key, change.before, change.after
    held = [_number(text) for text in (before, after)] if key.startswith(_HELD_BACK) else []
    if held and None not in held:
        return f"{key}: {((held[1] or 0) - (held[0] or 0)) / 1e6:.1f} s more"
    name = f"variable {key}" if change.section == "environment" else _NAMES.get(key, key)
    if len(before) <= _LONG and len(after) <= _LONG:
        return f"{name} {before} -> {after}"
    gone, come = (_lacking(a, b) for a, b in ((before, after), (after, before)))
    if not gone and not come:
        return f"{name}: the same in another order"
    parts = [f"without {_cut(gone)}"] * bool(gone) + [f"with {_cut(come)}"] * bool(come)
    return f"{name} is now {', '.join(parts)}"


def _lacking(text: str, other: str) -> str:
    """The parts of a list (between colons, as in LD_LIBRARY_PATH, else between blanks) that the
    other lacks."""
    mark = ":" if ":" in text + other else " "
    theirs = other.split(mark)
    return mark.join(part for part in text.split(mark) if part not in theirs)


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def _processes(changes: list[Change]) -> list[str]:
    """Processes of sglang that are none of the run's, and began or ended meanwhile: one line."""
    parts = []
    for word, gone in (("ended", True), ("began", False)):
        numbers = [each.key.split()[-1] for each in changes if (each.after == "none") == gone]
        left = len(numbers) - _MOST_NUMBERS
        more = f" and {left} more (env.txt, env_after.txt)" if left > 0 else ""
        pids = f"PID{'s' * (len(numbers) > 1)} {', '.join(numbers[:_MOST_NUMBERS])}{more}"
        parts += [f"{word} ({pids})"] if numbers else []
    if not parts:
        return []
    return [
        f"other sglang processes on this machine, not started by this run, {' and '.join(parts)}: "
        "they may have disturbed the launches that they overlapped"
    ]


def lines(changes: list[Change], most: int = 6) -> list[str]:
    """A line a change, the same change of several GPUs on one; after `most` how many are left."""
    groups: dict[tuple[str, str, str], list[Change]] = {}
    for each in changes:
        if each.section == "server":
            continue
        groups.setdefault((each.key, each.before, each.after), []).append(each)
    out = _processes([each for each in changes if each.section == "server"])
    for group in groups.values():
        numbers = ",".join(str(each.gpu) for each in group)
        text = _line(group[0])
        head = "" if group[0].gpu is None else f"GPU{'s' * (len(group) > 1)} {numbers} "
        out.append(head + text)
    return out if len(out) <= most else [*out[:most], f"and {len(out) - most} more"]

"""What the GPUs count, before and after a launch: clocks, what held them back, ECC errors, Xids.

Read with nvidia-smi, Xids from the kernel's log, each with a time limit. A field that the driver
does not know is left out.
"""

from __future__ import annotations

import re
from typing import Any

from repro_pp_graphs.server.machine import xids

LIMIT_S = 10.0  # for one nvidia-smi, or dmesg
# power in W, clocks in MHz, temperature in degrees C
STATES = (
    "clocks.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "clocks_event_reasons.active",
)
ECC = ("ecc.errors.corrected.volatile.total", "ecc.errors.uncorrected.volatile.total")
UNCORRECTED = "uncorrected"
MEANING = {
    "corrected": ": what it computed is right; have this GPU looked at",
    UNCORRECTED: ": what it computed may be wrong",
}
# microseconds for which clocks were held back since the driver was loaded; newer drivers have them
HELD_BACK = {
    "clocks_event_reasons_counters.sw_power_cap": "power capping",
    "clocks_event_reasons_counters.sw_thermal_slowdown": "temperature (software)",
    "clocks_event_reasons_counters.hw_thermal_slowdown": "temperature (hardware)",
    "clocks_event_reasons_counters.hw_power_brake_slowdown": "the power brake",
    "clocks_event_reasons_counters.sync_boost": "sync boost",
}
FIELDS = ("uuid", "index", "pci.bus_id", *STATES, *ECC, *HELD_BACK)
# what drivers before 535 call them
OLDER = {"clocks_event_reasons.active": "clocks_throttle_reasons.active"}
LEAST_HELD_S = 0.1
_UNKNOWN = re.compile(r'Field "([^"]+)" is not a valid')
_LOST = re.compile(r"GPU is lost|fallen off the bus", re.IGNORECASE)

Counters = dict[str, Any]


def read(uuids: list[str]) -> Counters:
    """The counters of those GPUs (of all, where none of them is known) and the kernel's Xid lines.

    {"gpus": [{"uuid": ..., "clocks.sm": 1980, ...}, ...], "xid_lines": [...]}; where a tool gives
    no answer its part is None, and "gpus_why" or "xid_why" says why. Never raises.
    """
    found: Counters = {}
    rows, why = _query()
    ours = [row for row in rows or [] if row["uuid"] in uuids]
    found["gpus"] = ours or rows
    if why:
        found["gpus_why"] = why
    return found | read_log()


def read_log() -> Counters:
    """The kernel's Xid lines alone, as `read` gives them."""
    text, why = _run("dmesg")
    return {"xid_lines": None, "xid_why": why} if why else {"xid_lines": xids.lines_in(text)}


def _query() -> tuple[list[Counters] | None, str]:
    """A row a GPU, or None and why; asks again without the fields that the driver does not know."""
    asked = list(FIELDS)
    while True:
        text, why = _run("nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader")
        if not why:
            return parse(text, asked), ""
        unknown = _UNKNOWN.search(text)
        if not unknown or unknown[1] not in asked:
            return None, why
        at = asked.index(unknown[1])
        asked[at : at + 1] = [OLDER[unknown[1]]] if unknown[1] in OLDER else []


def _run(*command: str) -> tuple[str, str]:
    """A command's output, and why it failed, or an empty text."""
    import subprocess  # noqa: PLC0415 - 4 ms, and most steps run no program

    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False
        )
    except OSError as error:
        return "", f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} gave no answer in {LIMIT_S:.0f} s"
    text = done.stdout + done.stderr
    last = text.strip().splitlines()[-1:] or ["no output"]
    return text, f"{command[0]}: {last[0]}" if done.returncode else ""


def parse(text: str, asked: list[str]) -> list[Counters]:
    """nvidia-smi's rows (csv, no header) for those fields; `[N/A]` and the like are left out."""
    names = {older: name for name, older in OLDER.items()}
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(asked):
            continue
        row = {names.get(name, name): _value(cell) for name, cell in zip(asked, cells, strict=True)}
        rows.append({name: value for name, value in row.items() if value is not None})
    return [row for row in rows if "uuid" in row]


def _value(cell: str) -> float | int | str | None:
    """`1980 MHz` -> 1980, `612.34 W` -> 612.34, hexadecimal and names as they are."""
    if not cell or cell.startswith("["):
        return None
    number = re.fullmatch(r"(-?\d+)(\.\d+)?(?: [A-Za-z%]+)?", cell)
    if not number:
        return cell
    return float(number[1] + number[2]) if number[2] else int(number[1])


def remarks(before: Counters, after: Counters, passes: Counters | None = None) -> list[str]:
    """What happened to the GPUs between the two that a reader of the numbers must know, without
    Xids that are faults; `passes`: as of faults."""
    found = []
    gpus = before.get("gpus") or []
    earlier = {row["uuid"]: row for row in gpus}
    for row in after.get("gpus") or []:
        texts = _changes(earlier.get(row["uuid"], {}), row)
        found += [f"GPU {row.get('index', row['uuid'])}: {text}" for text in texts]
    if gpus and after.get("gpus") is None:
        found.append(f"GPU counters are lacking after it: {after['gpus_why']}")
    own, others = xids.owned(xids.new(before.get("xid_lines"), after.get("xid_lines")), gpus)
    early = _while_measured(before, after, passes)
    late = xids.new(early, own)
    found += xids.words(filter(xids.corrected, xids.owned(early, gpus).own), gpus)
    found += [f"after its last measured pass, {text}" for text in xids.words(late, gpus)]
    if others:
        found.append(f"of GPUs that are not its own: {'; '.join(xids.words(others, []))}")
    return found


def faults(before: Counters, after: Counters, passes: Counters | None = None) -> list[str]:
    """Why a launch between the two is no measurement: an uncorrected ECC error, an Xid or the loss
    of a GPU that it ran on. Clocks that were held back are none, nor errors that were corrected
    (and their Xids), and no Xid that the kernel's log had not yet when its last measured pass had
    ended (`passes`: what read_log gave then)."""
    rows = {row["uuid"]: row for row in after.get("gpus") or []}
    found = []
    gpus = before.get("gpus") or []
    for row in gpus:
        name = f"GPU {row.get('index', row['uuid'])}"
        if row["uuid"] in rows:
            errors = _ecc_errors(row, rows[row["uuid"]])
            found += [f"{name}: {errors[kind]}" for kind in errors if kind == UNCORRECTED]
        elif rows or _LOST.search(after.get("gpus_why", "")):
            found.append(f"{name} was lost during the launch")
    early = [each for each in _while_measured(before, after, passes) if not xids.corrected(each)]
    return found + xids.words(xids.owned(early, gpus).own, gpus)


def _while_measured(before: Counters, after: Counters, passes: Counters | None) -> list[str]:
    """New Xid lines, without those that are known to have come after the last measured pass."""
    measured = (passes or {}).get("xid_lines")
    until = after.get("xid_lines") if measured is None else measured
    return xids.new(before.get("xid_lines"), until)


def _changes(before: Counters, after: Counters) -> list[str]:
    """What one GPU counted in between; nothing of a counter that one of the two lacks."""

    found = list(_ecc_errors(before, after).values())
    for name, what in HELD_BACK.items():
        if (held_s := _counted(name, before, after) / 1e6) > LEAST_HELD_S:
            found.append(f"clocks held back by {what} for {held_s:.1f} s during the launch")
    limits = before.get("power.limit"), after.get("power.limit")
    if None not in limits and limits[0] != limits[1]:
        found.append(f"power limit {limits[0]} W -> {limits[1]} W during the launch")
    return found


def _ecc_errors(before: Counters, after: Counters) -> dict[str, str]:
    """By kind, corrected or uncorrected, that a GPU counted some."""
    counts = {name.split(".")[2]: _counted(name, before, after) for name in ECC}
    return {
        kind: f"{n:.0f} {kind} ECC errors during the launch{MEANING[kind]}"
        for kind, n in counts.items()
        if n > 0
    }


def _counted(name: str, before: Counters, after: Counters) -> float:
    """By how much a counter has gone up; 0 where one of the two lacks it."""
    values = before.get(name), after.get(name)
    if not all(isinstance(value, int | float) for value in values):
        return 0.0
    return float(values[1]) - float(values[0])  # type: ignore[arg-type]

"""--sweep: the loads that are measured on every server, one after another, and their order.

`--sweep batch=1,8,32 input_len=100,4000` makes six loads. The first is the main load: the run's
table, its profile and its verdict are of it. A server is started once for all of them: what it
must be told of a load, the most requests in a micro-batch, it takes while it runs.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from typing import NamedTuple

from repro_pp_graphs.run_record import Load, Plan
from repro_pp_graphs.server.case.argfile import ServerArgs

MICRO_BATCH = "--pp-max-micro-batch-size"
RUNNING, CAPACITY = "--max-running-requests", "--max-total-tokens"
MOST_LOADS = 32
LONGEST_RATE = 12  # characters
NONE = "none"  # of mix: nothing arrives beside the load
EVERY = "all"  # of --profile-loads: every load of the sweep


class SweepError(ValueError):
    """A sweep that cannot be measured; the message says what to do."""


class Axis(NamedTuple):
    """What may vary: how its values are checked, named in files, shown to people."""

    check: Callable[[str], str]  # the value as it is kept; raises SweepError
    short: str  # of a file's name: b8
    title: str  # of a table: batch 8


def _whole(high: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch("[1-9][0-9]{0,9}", text) or int(text) > high:
            raise SweepError(f"{text[:20]}: give whole numbers from 1 to {high}")
        return text

    return check


def _rate(text: str) -> str:
    number = re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) if len(text) <= LONGEST_RATE else None
    if not number or not 0 < float(text) <= 10_000:
        raise SweepError(f"{text[:20]}: give requests a second, above 0 and up to 10000")
    return text


def _mix(text: str) -> str:
    if text == NONE:
        return text
    length, at, rate = text.partition("@")
    if not at:
        raise SweepError(f"{text[:20]}: give TOKENS@RATE, as 4000@2, or {NONE}")
    return f"{_whole(1_000_000)(length)}@{_rate(rate)}"


AXES = {
    "batch": Axis(_whole(65_536), "b", "batch {}"),
    "micro_batch": Axis(_whole(65_536), "mb", "micro-batch {}"),
    "input_len": Axis(_whole(1_000_000), "in", "input {}"),
    "tokens": Axis(_whole(1_000_000), "out", "{} new tokens"),
    "rate": Axis(_rate, "rate", "{}/s"),
    "mix": Axis(_mix, "mix", "beside {}"),
}


OPTIONS = {"batch": "batch", "tokens": "max_new_tokens"}  # axis -> what says the same of one load


def parse(words: list[str]) -> dict[str, list[str]]:
    """`AXIS=V,V` words as values by axis. Raises SweepError."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.replace("-", "_")
        if name not in AXES or not equals:
            raise SweepError(f"{word[:40]}: give AXIS=V,V with AXIS one of {', '.join(AXES)}")
        if name in found:
            raise SweepError(f"{name} is given twice: all its values in one list, as {name}=1,8")
        try:
            values = [AXES[name].check(value) for value in text.split(",")]
        except SweepError as error:
            raise SweepError(f"{name}={error}") from None
        if len(set(values)) < len(values):
            raise SweepError(f"{word[:40]}: a value is given twice: name each once")
        found[name] = values
    loads = 1
    for values in found.values():
        loads *= len(values)
    if loads > MOST_LOADS:
        raise SweepError(f"{loads} loads: {MOST_LOADS} at most; take fewer values")
    return found


def loads(sweep: dict[str, list[str]], batch: int, max_new_tokens: int) -> list[Load]:
    """Every combination of the values, in the order given, but for the main load, which is first:
    that of `batch` and `max_new_tokens` where they are among the values, else the first. Raises
    SweepError."""
    made: list[Load] = []
    if not sweep:
        return made
    for values in itertools.product(*sweep.values()):
        point = dict(zip(sweep, values, strict=True))
        length, _, rate = point.get("mix", NONE).partition("@")
        load = Load(
            name="_".join(AXES[axis].short + v.replace("@", "at") for axis, v in point.items()),
            title=", ".join(_title(axis, value) for axis, value in point.items()),
            point=point,
            batch=int(point.get("batch", batch)),
            max_new_tokens=int(point.get("tokens", max_new_tokens)),
            micro_batch=int(point["micro_batch"]) if "micro_batch" in point else None,
            input_len=int(point["input_len"]) if "input_len" in point else None,
            rate=float(point["rate"]) if "rate" in point else None,
            beside_len=int(length) if rate else None,
            beside_rate=float(rate) if rate else None,
        )
        if load.rate and load.beside_len:
            raise SweepError(
                "rate and mix: a mix is beside prompts that all decode at once: leave one out"
            )
        made.append(load)
    wanted = (batch, max_new_tokens)
    asked = (load for load in made if (load.batch, load.max_new_tokens) == wanted)
    return sorted(made, key=next(asked, made[0]).__ne__)


def _title(axis: str, value: str) -> str:
    if axis == "mix":
        length, _, rate = value.partition("@")
        return f"beside {length} tokens at {rate}/s" if rate else "nothing beside"
    return AXES[axis].title.format(value)


def profiled(asked: list[str], made: list[Load]) -> list[str]:
    """The names of the loads to profile beside the main one, in their order. Raises SweepError."""
    names = [load.name for load in made]
    if unknown := [name for name in asked if name not in (*names, EVERY)]:
        raise SweepError(
            f"--profile-loads {unknown[0][:40]}: no load of the sweep has that name: {EVERY}, or "
            f"some of {', '.join(names)}"
        )
    return [name for name in names[1:] if name in asked or EVERY in asked]


def in_flight(args: ServerArgs) -> int:
    """Micro-batches that the ranks of a server work on at once."""
    return args.get_int("--pp-size", 1) + args.get_int("--pp-async-batch-depth", 0)


def micro_batches(args: ServerArgs, made: list[Load]) -> tuple[dict[str, int | None], list[str]]:
    """The most requests in a micro-batch for each load, by its name, and notes; the largest is the
    server's own as it starts. None: what the files say holds for all. Raises SweepError.

    Those in flight share a batch evenly; where prompts arrive beside it there is room for one.
    """
    asked = any(load.micro_batch for load in made)
    if args.get_int("--pp-size", 1) == 1 or (MICRO_BATCH in args.flags and not asked):
        if asked:
            raise SweepError("micro_batch: one PP rank has no micro-batches: leave it out")
        return {load.name: None for load in made}, []
    if not made:
        return {}, []
    at_once = args.get_int(RUNNING, 0)
    most = at_once // args.get_int("--pp-size", 1) or max(load.batch for load in made) + 1
    sizes: dict[str, int | None] = {}
    for load in made:
        share = -(-load.batch // in_flight(args)) + bool(load.beside_len)
        sizes[load.name] = min(load.micro_batch or share, most)
    args.set(MICRO_BATCH, str(max(size or 1 for size in sizes.values())))
    notes = [f"{MICRO_BATCH} is set anew for each load, while the server runs"]
    return sizes, [*notes, *_remarks(args, made, sizes)]


def _remarks(args: ServerArgs, made: list[Load], sizes: dict[str, int | None]) -> list[str]:
    """Loads whose prompts will wait for one another, and why."""
    at_once = args.get_int(RUNNING, 0)
    whys: dict[str, list[str]] = {}
    for load in made:
        size = sizes[load.name] or 0
        if 0 < at_once < load.batch:
            whys.setdefault(f"{RUNNING} is {at_once}", []).append(load.title)
        elif load.micro_batch and size < load.micro_batch:
            whys.setdefault(f"the largest micro-batch is {size} ({RUNNING})", []).append(load.title)
        elif size * in_flight(args) < load.batch:
            whys.setdefault("the micro-batches do not hold the batch", []).append(load.title)
    return [f"{'; '.join(titles)}: {why}: prompts wait" for why, titles in whys.items()]


def put_in_order(plan: Plan) -> None:
    """Order every launch's loads: drawn anew for each round, the same for all of its cases, so that
    neither their order nor the server's age favours a case."""
    for launch in plan.launches:
        source = random.Random(f"{plan.order_seed} loads {launch.round}")
        drawn = sorted((source.random(), name) for name in launch.loads)
        launch.loads = {name: launch.loads[name] for _, name in drawn}

"""Folders to report on: a real series on two H100s, with and without traces; a rehearsal."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent / "data"
SERIES = DATA / "runs" / "h100_pp2_sglang052_4rounds"
A, B = "CASE_A_decode_graphs", "CASE_B_no_graphs"
TRACES = {A: "sglang052_graphs_on", B: "sglang052_graphs_off"}


@cache
def of_summary() -> Any:
    """The validator of what summary.json must hold to."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - a run to report on needs none

    from repro_pp_graphs import schemas  # noqa: PLC0415
    from repro_pp_graphs.report.summary import summary_record  # noqa: PLC0415

    return Draft202012Validator(json.loads(schemas.schema_text(summary_record.Summary)))


def series(to: Path) -> Path:
    """Four rounds of sglang 0.5.2 on two H100s, not profiled; as a run's folder."""
    shutil.copytree(SERIES, to / "logs")
    return to


def changed(path: Path, change: Any) -> None:
    """A JSON file with a change made to its value."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def traced(to: Path) -> Path:
    """Its first round, with traces of the same release under it."""
    series(to)

    def first_round(run: dict[str, Any]) -> None:
        run["launches"] = [each for each in run["launches"] if each["round"] == 1]
        run["profile"] = True

    changed(to / "logs" / "run.json", first_round)
    for path in (to / "logs").glob("*_r[234]_*"):
        path.unlink()
    for label, name in TRACES.items():
        shutil.copytree(DATA / "traces" / name, to / "trace" / label)
    return to


def rehearsal(to: Path) -> Path:
    """The series as if it were a rehearsal on a CPU."""
    series(to)
    changed(to / "logs" / "run.json", lambda run: run.update(mode="cpu"))
    return to


CLOCK = {"pp_clock": "times the waits of a turn"}
LOADS = (16, 4, 64)  # prompts; the main load first
# ms of the token return and of its idle part with graphs on, by load; graphs off has 3 and 0.4
RETURNS = {16: (20.0, 0.5), 4: (9.0, 0.4), 64: (70.0, 7.0)}


def swept(to: Path) -> Path:
    """The series as if every server had been measured under two more loads, whose TPOT is made up:
    no difference between the cases at 4 prompts, twice as long with graphs at 64."""
    series(to)
    loads = [
        {"name": f"b{n}", "title": f"batch {n}", "point": {"batch": str(n)}, "batch": n}
        | {"max_new_tokens": 256}
        for n in LOADS
    ]
    told = {f"b{n}": n // 2 for n in LOADS}

    def plan(run: dict[str, Any]) -> None:
        run["loads"] = loads
        for launch in run["launches"]:
            launch["loads"] = told

    changed(to / "logs" / "run.json", plan)
    for path in sorted((to / "logs").glob("*_launch.json")):
        label = path.name.removesuffix("_launch.json")
        on = label.startswith(A)
        changed(path, lambda launch: launch.update(loads=_load_records(), shims=CLOCK))
        for n in LOADS:
            name = label if n == LOADS[0] else f"{label}_at_b{n}"
            client = to / "logs" / f"{name}_client.json"
            if n != LOADS[0]:
                shutil.copy(to / "logs" / f"{label}_client.json", client)
                changed(client, lambda found, n=n, on=on: _scale(found, n, on))
            write_clock(to / "logs" / f"{name}_pp_clock.json", n if on else None)
    return to


def _load_records() -> dict[str, Any]:
    return {
        f"b{n}": {"status": "ok", "place": at, "micro_batch": n // 2}
        for at, n in enumerate(LOADS, 1)
    }


def _scale(client: dict[str, Any], load: int, graphs: bool) -> None:
    """TPOT of a load: 1.0526 undoes what graphs win at 16 prompts."""
    factor = 2.0 if load == 64 and graphs else 1.0526 if graphs else 1.0
    client["summary"]["mean_tpot_ms"] *= factor


def write_clock(path: Path, load: int | None) -> None:
    """Facts of pp_clock with the token return of a load with graphs on; None: with graphs off."""
    whole, idle = RETURNS[load] if load else (3.0, 0.4)

    def ms(value: float) -> dict[str, float]:
        return {"count": 400, "mean": value, "median": value, "p99": value}

    decode = {
        **{"turn": ms(80.0), "waits": ms(whole + 4), "split": 400, "own_batch": ms(38.0)},
        **{"calls": {"send_tokens": ms(whole), "recv_hidden": ms(4.0)}},
        **{"waits_in_own_batch": ms(whole), "waits_outside": ms(idle + 2)},
        "outside": {"send_tokens": ms(idle), "recv_hidden": ms(2.0)},
        "parts": {"send_tokens": whole, "recv_hidden": 4.0, "launch": 1.5},
    }
    first = {
        **{"turn": ms(80.0), "waits": ms(6.0), "split": 400, "own_batch": ms(30.0)},
        **{"calls": {"recv_tokens": ms(6.0)}, "parts": {"recv_tokens": 6.0}},
        **{"waits_outside": ms(2.5), "outside": {"recv_tokens": ms(2.5)}},
    }
    prefill = {"turn": ms(200.0), "waits": ms(9.0), "calls": {"send_tokens": ms(3.2)}}
    rank = {"pp_rank": 1, "tp_rank": 0, "rows": 9, "lost": 0, "torn": 0, "profiled": {}}
    ranks = {
        "PP0": rank | {"pp_rank": 0, "measured": {"decode": first}},
        "PP1": rank | {"measured": {"decode": decode, "prefill": prefill}},
    }
    facts = {"pp_size": 2, "loop_size": 2, "ranks": ranks, "last": "PP1"}
    path.write_text(json.dumps(facts), encoding="utf-8")

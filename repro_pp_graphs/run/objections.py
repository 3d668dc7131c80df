"""What stops a plan on any machine with these GPUs, and the splits with which a model would fit."""

from __future__ import annotations

from repro_pp_graphs.run import make_plan
from repro_pp_graphs.run.checks import preflight
from repro_pp_graphs.run.memory import fitting
from repro_pp_graphs.run.plan import ways_out
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release.installed import Prober

TIMES = (2, 4)  # as many GPUs, where these are too few


def of_plan(plan: Plan, gpus: list[Gpu], options: Options, probe: Prober) -> list[str]:
    """One line each."""

    def splits(times: int, most: int) -> str:
        there, first = gpus * times, plan.launches[0]
        ways = ways_out.placements(
            options, len(there), first, lambda one: make_plan.passes(one, there, probe), most
        )
        return ", or ".join(ways)

    found = []
    for text in preflight.of_plan(plan, gpus, options):
        said = text
        if fitting.SPLITS in text:
            here = splits(1, 2)
            said = text.replace(fitting.SPLITS, here) if here else text.replace(fitting.OTHER, "")
        elif fitting.MORE_GPUS in text:
            with_more = ((times * len(gpus), splits(times, 1)) for times in TIMES)
            count, there = next((one for one in with_more if one[1]), (0, ""))
            more = f"{fitting.MORE_GPUS} ({count} of these: {there})"
            said = text.replace(fitting.MORE_GPUS, more) if there else text
        found.append(said)
    return found

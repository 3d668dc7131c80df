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
    first = plan.launches[0]

    def splits(times: int) -> list[str]:
        there = gpus * times  # on each node
        return ways_out.placements(
            options,
            len(there) * first.nodes,
            first,
            lambda one: make_plan.passes(one, there, probe),
        )

    found = []
    for text in preflight.of_plan(plan, gpus, options):
        said = text
        if fitting.SPLITS in text:
            here = ", or ".join(splits(1))
            said = text.replace(fitting.SPLITS, here) if here else text.replace(fitting.OTHER, "")
        elif fitting.MORE_GPUS in text:
            with_more = ((times * len(gpus), splits(times)) for times in TIMES)
            count, ways = next((one for one in with_more if one[1]), (0, []))
            more = f"{count} of these{' on each node' * (first.nodes > 1)}: {', or '.join(ways)}"
            said = (
                text.replace(fitting.MORE_GPUS, f"{fitting.MORE_GPUS} ({more})") if ways else text
            )
        found.append(said)
    return found

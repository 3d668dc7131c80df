"""How a run uses the machine: a GPU a rank, ranks that share GPUs, or the CPU."""

from __future__ import annotations

from collections.abc import Mapping

from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run.plan.ways_out import Unfit
from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.machine.gpus import Gpu


def pick_mode(
    options: Options, gpus: list[Gpu], ranks_of: Mapping[str, int], base: ServerArgs
) -> str:
    """gpu, one_gpu or cpu, by the ranks of each case. Raises Unfit where there are some GPUs, but
    fewer than ranks."""
    ranks = max(ranks_of.values())
    each = options.ranks_per_gpu or 1
    if options.cpu or not gpus:
        wish = "--one-gpu" if options.one_gpu else "--ranks-per-gpu" if each > 1 else ""
        if wish and not gpus:
            raise PlanError(f"{wish}: nvidia-smi shows no GPU; leave it out for a CPU rehearsal")
        return "cpu"
    if each > 1 and len(gpus) >= -(-ranks // each):
        return "one_gpu"
    if len(gpus) >= ranks:
        return "gpu"
    if options.one_gpu and not options.ranks_per_gpu:
        return "one_gpu"
    most = [case for case, its in ranks_of.items() if its == ranks]
    whose = f" ({', '.join(most)})" * (len(most) < len(ranks_of))
    raise Unfit(
        f"{len(gpus)} GPU(s) {'assumed' if gpus[0].assumed else 'visible'}, but tp x pp asks for "
        f"{ranks}{whose}",
        options.model or base.get("--model-path"),
        (ranks // base.get_int("--tp-size", 1), base.get_int("--tp-size", 1)),
    )

"""Cases that leave to sglang which batch sizes get a decode graph, beside one that names them."""

from __future__ import annotations

from repro_pp_graphs.run.plan.graph_batches import LARGEST, LISTED, OFF
from repro_pp_graphs.run_record import Launch, Plan

SIZES = (*LISTED, *LARGEST)
CONFIG = "--cuda-graph-config"  # JSON, which may name sizes too


def add_notes(plan: Plan) -> None:
    """Say so of each launch with graphs whose case has no such argument, where another case of the
    same release has one: a case of one's own builds on base, not on graphs_on."""
    if plan.engine != "sglang" or plan.attached:
        return
    for launch in plan.launches:
        if not _has_graphs(launch) or _sizes(launch) or CONFIG in launch.args:
            continue
        others = (one for one in plan.firsts if one.sglang_version == launch.sglang_version)
        other = next((one for one in others if _has_graphs(one) and _sizes(one)), None)
        if other:
            launch.notes.append(
                f"which batch sizes get a decode graph is left to sglang; {other.case} says it "
                f"({_sizes(other)}). For cases that differ in nothing else copy that line of "
                f"server_args_{other.case}.txt into server_args_{launch.case}.txt"
            )


def of_use(arguments: list[str], launch: Launch) -> list[str]:
    """Those that would change anything in this launch: sizes of graphs do not where it has none."""
    if _has_graphs(launch):
        return arguments
    return [text for text in arguments if text.split()[0] not in SIZES]


def _has_graphs(launch: Launch) -> bool:
    """A rehearsal expects none: there the arguments tell."""
    if launch.expects_graphs is None:
        return not any(flag in launch.args for flag in OFF)
    return launch.expects_graphs


def _sizes(launch: Launch) -> str:
    """The first of its arguments that name sizes, with its values; empty where it has none."""
    return next((text for text in launch.arguments if text.split()[0] in SIZES), "")

"""Is an arm what it claims? The log's decode lines and the traces' graph launches show it."""

from __future__ import annotations

from repro_pp_graphs.launch_record import GraphState
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.case import needs
from repro_pp_graphs.server.log.log_lines import DecodeLine, decode_lines, prefills_with_graph
from repro_pp_graphs.server.release.installed import version_numbers


def observe(
    lines: list[DecodeLine], launches: dict[str, int] | None, prefills: int = 0
) -> GraphState:
    """Count what the log and the traces show; `prefills`: that ran with a graph."""
    return GraphState(
        decode_lines=len(lines),
        with_graph=sum(line.graph for line in lines),
        largest_eager_bs=max((line.running for line in lines if not line.graph), default=0),
        launches=launches,
        prefills_with_graph=prefills,
    )


def _names_a_neighbour(state: GraphState, launch: Launch) -> bool:
    """True where eager lines may be wrong, as they are a neighbour's that was just prefilled."""
    fits = state.largest_eager_bs <= (launch.captured_max_bs or 0)
    return bool(_mixes_lines(launch) and fits and state.with_graph)


def _mixes_lines(launch: Launch) -> bool:
    """Up to 0.5.6 the PP loop hands the line of one micro-batch the graph state of another."""
    return launch.pp_size > 1 and version_numbers(launch.sglang_version) < (0, 5, 7)


def objections(state: GraphState, launch: Launch) -> list[str]:
    """Why the arm is not what it claims; empty where it is, or where nothing is claimed (CPU)."""
    if launch.expects_graphs is None:
        return []
    found = []
    eager = state.decode_lines - state.with_graph
    if launch.expects_graphs and eager and not _names_a_neighbour(state, launch):
        size = launch.captured_max_bs
        found.append(
            f"graphs on, but {eager} of {state.decode_lines} decode lines ran eagerly, with up to "
            f"{state.largest_eager_bs} requests"
            + (f"; the largest captured batch is {size}" if size else "")
            + ": raise --cuda-graph-max-bs, or lower --batch"
        )
    if not launch.expects_graphs and state.with_graph:
        found.append(f"graphs off, but {state.with_graph} decode lines replayed a graph")
    if state.launches is not None:
        without = [rank for rank, count in state.launches.items() if not count]
        if launch.expects_graphs and (without or not state.launches):
            found.append(f"graphs on, but no cudaGraphLaunch on rank {', '.join(without) or 'any'}")
        of_prefills = state.prefills_with_graph and state.decode_lines
        if not launch.expects_graphs and len(without) < len(state.launches) and not of_prefills:
            found.append(f"graphs off, but the traces hold cudaGraphLaunch: {state.launches}")
    if not state.decode_lines and state.launches is None:
        found.append("no decode line in the log and no trace: the graph state was not seen")
    return found


def check(
    log_text: str, launches: dict[str, int] | None, launch: Launch
) -> tuple[GraphState, list[str]]:
    """What a launch ran by its server's log and its traces' graph launches (by rank; None without
    traces), and why that is not what it claims."""
    prefills = 0 if _mixes_lines(launch) else prefills_with_graph(log_text)
    state = observe(decode_lines(log_text), launches, prefills)
    on_cuda = launch.expects_graphs is not None
    unproven = needs.unproven(log_text, launch.env, launch.ranks, on_cuda)
    return state, objections(state, launch) + unproven

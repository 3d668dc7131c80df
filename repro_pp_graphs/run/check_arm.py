"""Is an arm what it claims? The log's decode lines and the traces' graph launches tell."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from repro_pp_graphs.files import read_object
from repro_pp_graphs.run import record
from repro_pp_graphs.run.failure import read_log
from repro_pp_graphs.run.record import Launch
from repro_pp_graphs.run.settle import traces_of
from repro_pp_graphs.server import flags, log, needs, shims
from repro_pp_graphs.server.log import DecodeLine
from repro_pp_graphs.terminal import wrapped


@dataclass(frozen=True)
class GraphState:
    """What the server really ran: decode lines with and without a graph, launches by PP rank."""

    decode_lines: int
    with_graph: int
    largest_eager_bs: int  # requests in the largest decode batch that ran without a graph
    launches: dict[str, int] | None  # cudaGraphLaunch calls in the traces; None unprofiled


def observe(lines: list[DecodeLine], launches: dict[str, int] | None) -> GraphState:
    """Count what the log and the traces show."""
    return GraphState(
        decode_lines=len(lines),
        with_graph=sum(line.graph for line in lines),
        largest_eager_bs=max((line.running for line in lines if not line.graph), default=0),
        launches=launches,
    )


def _names_a_neighbour(state: GraphState, launch: Launch) -> bool:
    """True where eager lines may be wrong: up to 0.5.6 the PP loop hands the line of one
    micro-batch the graph state of another, which may just have been prefilled."""
    numbers = flags.version_numbers(launch.sglang_version)
    fits = state.largest_eager_bs <= (launch.captured_max_bs or 0)
    return bool(launch.pp_size > 1 and numbers < (0, 5, 7) and fits and state.with_graph)


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
        if not launch.expects_graphs and len(without) < len(state.launches):
            found.append(f"graphs off, but the traces hold cudaGraphLaunch: {state.launches}")
    if not state.decode_lines and state.launches is None:
        found.append("no decode line in the log and no trace: the graph state was not seen")
    return found


def main(argv: list[str]) -> int:
    """check-arm LOGS LABEL [ANALYSIS]: 0 where the arm is what it claims, 1 where not."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs check-arm", description=__doc__)
    parser.add_argument("logs", type=Path)
    parser.add_argument("label")
    parser.add_argument("analysis", type=Path, nargs="?")
    parser.add_argument(
        "--server-died", action="store_true", help="warn that it ended before it was stopped"
    )
    options = parser.parse_args(argv)
    if options.server_died:
        text = f"the server died after its last pass; see {options.label}_server.log"
        record.warn(options.logs, options.label, text)
    launches = None
    if options.analysis and options.analysis.exists():
        launches = read_object(options.analysis, record.ANALYSIS).get("graph_launches")
    launch = record.load(options.logs).launch(options.label)
    text = read_log(options.logs / f"{options.label}_server.log")
    state = observe(log.decode_lines(text), launches)
    found = objections(state, launch)
    on_cuda = launch.expects_graphs is not None
    found += needs.unproven(text, launch.env, launch.ranks, on_cuda)
    more, lost = traces_of(options.logs.parent, options.label)
    if more or lost:
        found.append(f"while its traces were read, others came or went: {', '.join(more + lost)}")
    installed = {name: shims.REASONS[name] for name in shims.names_in(launch.env)}
    record.save_facts(options.logs, options.label, graph_state=asdict(state), shims=installed)
    if not found:
        return 0
    for text in found:
        print("\n".join(wrapped(f"{options.label}: NOT WHAT IT CLAIMS: {text}", "  ")))
    record.save_facts(options.logs, options.label, status="failed", reason="; ".join(found))
    return 1

"""What the probe was asked for: read and checked before torch is imported."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from repro_pp_graphs.probe.cells import SENDS, Send, parse_send
from repro_pp_graphs.terminal import Parser, file_beside_text, folder

DESCRIPTION = (
    "The ring of sglang's PP loop as a small program: how long the last rank's token send takes, "
    "and what it waits for, by send path and with or without CUDA graphs."
)
EXAMPLES = """\
send paths (docs/mechanism.md):
  blocking     as sglang 0.4.10 to 0.5.2: pickled metadata through the GPU,
               its size over gloo, then NCCL
  async        as sglang 0.5.7 and later: metadata on the CPU group, isend,
               results behind events
  comm_stream  blocking, but the last rank's token send on a stream of its own
  event_send   blocking, but pinned copies and CUDA events, no stream syncs
  batched_p2p  a turn's sends and recvs in one batch_isend_irecv, no metadata
               (or: batched)
  comm_stream+event_send  both

examples:
  everything, on what there is
    python -m repro_pp_graphs probe
  the pattern of #10865 alone, on one GPU
    python -m repro_pp_graphs probe --ranks 2 --send blocking --graphs on,off
  one path with its results and traces kept
    python -m repro_pp_graphs probe --send async --json r.json --trace traces/
  the same by torchrun, and so over several hosts
    torchrun --nproc-per-node 4 -m repro_pp_graphs probe

exit status: 0 measured and right; 1 a rank failed or computed something else;
2 usage; 130 interrupted
"""
RANKS_A_CORE = 8  # more would take minutes to import torch
# --hidden, --layers, --batch, --steps, dtype where nothing is said. On a GPU a shape whose decode
# step takes the host longer to launch than the device to run, as real decode without graphs does.
SIZES = {"cuda": (4096, 32, 8, 16, "bfloat16"), "cpu": (256, 4, 4, 24, "float32")}
SETTLING_STEPS = 4  # the first steps fill the ring: they are run and checked, not counted


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """The probe's options, with all defaults settled."""

    ranks: int
    device: str  # cuda or cpu
    graphs: list[bool]
    sends: list[Send]
    repetitions: int
    hidden: int
    layers: int
    batch: int
    steps: int
    micro_batches: int
    dtype: str
    host_us: int
    json: Path | None
    client_json: Path | None
    trace: Path | None
    trace_steps: int


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _ranks(text: str) -> int:
    if _whole(text) < 2:
        raise argparse.ArgumentTypeError("a ring needs 2 ranks or more")
    return _whole(text)


def _host_us(text: str) -> int:
    return 0 if text == "0" else _whole(text)


def _states(text: str) -> list[bool]:
    states = list(dict.fromkeys(text.split(",")))
    if not set(states) <= {"on", "off"}:
        raise argparse.ArgumentTypeError(f"'{text}': on, off, or on,off")
    return [state == "on" for state in states]


def _sends(text: str) -> list[Send]:
    names = SENDS if text == "all" else text.split(",")
    try:
        return [parse_send(name) for name in dict.fromkeys(names)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser("probe", "[options]", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    # fmt: off
    add("--ranks", type=_ranks, default=4, metavar="N",
        help="pipeline ranks (default 4; torchrun decides)")
    add("--send", type=_sends, default="all", metavar="PATH[,PATH]",
        help="send paths, see below (default: the first five)")
    add("--graphs", type=_states, metavar="on|off|on,off",
        help="decode CUDA graphs (default: on,off; on a CPU off)")
    add("--json", type=file_beside_text, metavar="FILE",
        help="results; written after every repetition")
    add("--trace", type=folder, metavar="DIR",
        help="a profiled run of each combination: a trace a rank, held against the ranks' notes")
    add("--reps", type=_whole, default=3, metavar="N",
        help="repetitions, in balanced order (default 3)")
    add("--steps", type=_whole, metavar="N", help="decode steps a repetition (16; CPU 24)")
    add("--trace-steps", type=_whole, default=8, metavar="N", help="decode steps to trace (8)")
    add("--layers", type=_whole, metavar="N", help="layers of all ranks together (32; CPU 4)")
    add("--hidden", type=_whole, metavar="N", help="hidden size (4096; CPU 256)")
    add("--batch", type=_whole, metavar="N", help="sequences a micro-batch (8; CPU 4)")
    add("--micro-batches", type=_whole, metavar="N",
        help="micro-batches in flight (default: one a rank)")
    add("--dtype", choices=("bfloat16", "float16", "float32"), metavar="TYPE",
        help="bfloat16, float16 or float32 (bfloat16; CPU float32)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", metavar="KIND",
        help="auto, cuda or cpu (auto: a GPU where there is one)")
    add("--host-us", type=_host_us, default=200, metavar="US",
        help="host work that a batch's tokens cost, us (200)")
    # fmt: on
    # for run_repro.sh --engine probe: the client's contract, of a single cell
    add("--client-json", type=Path, help=argparse.SUPPRESS)
    return parser


def device_asked(argv: list[str]) -> str:
    """auto, cuda or cpu; a bad option ends the program as in `parse`."""
    return str(_parser().parse_args(argv).device)


def parse(argv: list[str], have_gpu: bool, world_size: int | None = None) -> ProbeOptions:
    """Read the options; a bad one ends the program with status 2 and one line."""
    parser = _parser()
    given = parser.parse_args(argv)
    device = given.device if given.device != "auto" else "cuda" if have_gpu else "cpu"
    if device == "cuda" and not have_gpu:
        parser.error("--device cuda: no GPU here; leave it out for a run on the CPU")
    if device == "cpu" and given.graphs and True in given.graphs:
        parser.error("--graphs on: CUDA graphs need a GPU; leave it out on a CPU")
    hidden, layers, batch, steps, dtype = SIZES[device]
    ranks = world_size or given.ranks
    most = RANKS_A_CORE * len(os.sched_getaffinity(0))
    if not world_size and ranks > most:
        parser.error(f"--ranks {ranks}: too many for this machine's cores, {most} at most")
    if ranks < 2:
        parser.error("torchrun started 1 rank, a ring needs 2 or more: --nproc-per-node 2")
    layers = given.layers or max(layers, ranks)
    if layers < ranks:
        parser.error(f"--layers {layers}: fewer than the {ranks} ranks, some would have none")
    hidden = given.hidden or hidden
    if hidden % (64 if hidden < 512 else 512):
        parser.error(f"--hidden {hidden}: not a multiple of 512 (below 512: of 64)")
    return ProbeOptions(
        ranks=ranks,
        device=device,
        graphs=given.graphs or ([True, False] if device == "cuda" else [False]),
        sends=_sends(given.send) if isinstance(given.send, str) else given.send,
        repetitions=given.reps,
        hidden=hidden,
        layers=layers,
        batch=given.batch or batch,
        steps=(given.steps or steps) + SETTLING_STEPS,
        micro_batches=given.micro_batches or ranks,
        dtype=given.dtype or dtype,
        host_us=given.host_us,
        json=given.json,
        client_json=given.client_json,
        trace=given.trace,
        trace_steps=given.trace_steps,
    )

"""What the probe was asked for: read and checked before torch is imported."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from repro_pp_graphs.probe.cells import SENDS, Send, parse_send

EXAMPLES = """\
examples:
  python -m repro_pp_graphs probe                          # everything, on what there is
  python -m repro_pp_graphs probe --send blocking --graphs on,off
  python -m repro_pp_graphs probe --send comm_stream+events --json result.json --trace traces/
  torchrun --nproc-per-node 4 -m repro_pp_graphs probe     # and so over several hosts

send paths (docs/mechanism.md):
  blocking     as sglang up to 0.5.6: pickled metadata through the GPU, size over gloo, then NCCL
  async        as sglang 0.5.7 and later: metadata on the CPU group, isend, results behind events
  comm_stream  blocking, but the last rank's token send on a stream of its own
  events       blocking, but pinned copies and CUDA events in place of stream syncs
  batched      a turn's sends and recvs in one batch_isend_irecv, without metadata

Exit: 0 measured and right; 1 a rank failed or computed something else; 2 usage; 130 interrupted.
"""
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
    parser = argparse.ArgumentParser(
        prog="repro_pp_graphs probe",
        description="The ring of sglang's PP loop as a small program: how long the last rank's "
        "token send takes, and what it waits for, by send path and with or without CUDA graphs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--ranks", type=_ranks, default=4, help="pipeline ranks (default 4; torchrun decides)")
    add("--send", type=_sends, default="all", metavar="PATH[,PATH]", help="default: all of them")
    add("--graphs", type=_states, metavar="on|off|on,off", help="default: both; off on a CPU")
    add("--reps", type=_whole, default=3, help="repetitions, in balanced order (default 3)")
    add("--steps", type=_whole, help="decode steps a repetition (default 16; CPU 24)")
    add("--layers", type=_whole, help="layers of all ranks together (default 32; CPU 4)")
    add("--hidden", type=_whole, help="hidden size (default 4096; CPU 256)")
    add("--batch", type=_whole, help="sequences a micro-batch (default 8; CPU 4)")
    add("--micro-batches", type=_whole, help="micro-batches in flight (default: one a rank)")
    add("--dtype", choices=("bfloat16", "float16", "float32"), help="default bfloat16; CPU float32")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default auto")
    add("--host-us", type=_host_us, default=200, help="host work a batch's tokens cost, us")
    add("--json", type=Path, metavar="FILE", help="results; written after every repetition")
    add("--trace", type=Path, metavar="DIR", help="a profiled run each: a trace a rank, and truth")
    add("--trace-steps", type=_whole, default=8, help="decode steps to trace (default 8)")
    # for run_repro.sh --engine probe: the client's contract, of a single cell
    add("--client-json", type=Path, help=argparse.SUPPRESS)
    return parser


def parse(argv: list[str], have_gpu: bool, world_size: int | None = None) -> ProbeOptions:
    """Read the options; a bad one ends the program with status 2 and one line."""
    parser = _parser()
    given = parser.parse_args(argv)
    device = given.device if given.device != "auto" else "cuda" if have_gpu else "cpu"
    if device == "cuda" and not have_gpu:
        parser.error("--device cuda: no GPU here; leave it out for a run on the CPU")
    if device == "cpu" and given.graphs and True in given.graphs:
        parser.error("--graphs on: CUDA graphs need a GPU; on a CPU use --graphs off")
    hidden, layers, batch, steps, dtype = SIZES[device]
    ranks = world_size or given.ranks
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

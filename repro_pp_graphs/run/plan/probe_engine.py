"""The launches of `--engine probe`: the same cases and labels, run by the probe without sglang."""

from __future__ import annotations

from repro_pp_graphs.probe.options import SETTLING_STEPS
from repro_pp_graphs.run.plan.case_arguments import load_case
from repro_pp_graphs.run.plan.graph_batches import wants_graphs
from repro_pp_graphs.run.plan.mode import pick_mode
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.order import Turn
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.case import argfile
from repro_pp_graphs.server.machine.gpus import Gpu

# the send path that is a case's counterpart; blocking for all others
SENDS = {
    "comm_overlap": "comm_stream",
    "comm_stream": "comm_stream",
    "event_send": "event_send",
    "batched_p2p": "batched_p2p",
}
NO_COUNTERPART = {
    "sync_send": "the probe's graphs_on sends so already",
    "sync_send_no_graphs": "the probe's graphs_off sends so already",
    "async_depth": "python -m repro_pp_graphs probe --send async --micro-batches N",
}
# sequences a micro-batch, tokens a sequence, steps to trace
LOADS = {"cpu": (4, 24, 6), "gpu": (8, 64, 8), "one_gpu": (8, 64, 8)}


def plan(options: Options, gpus: list[Gpu], turns: list[Turn]) -> Plan:
    """The run with its launches in that order. Raises PlanError or ArgFileError."""
    if options.nsys:
        raise PlanError("--engine probe: not under --nsys; leave one of the two out")
    if options.model:
        raise PlanError("--engine probe: it has no model; leave --model out, or use --layers")
    for case in options.cases:
        if case in NO_COUNTERPART:
            raise PlanError(f"--engine probe: no case {case}: {NO_COUNTERPART[case]}")
    ranks = options.pp_size or _base(options).get_int("--pp-size", 4)
    if ranks < 2:
        raise PlanError(f"--engine probe: a ring of {ranks} has no sends; --pp-size 2 or more")
    # the probe lets ranks share a GPU without being asked: there is nothing else to try there
    shares = 0 < len(gpus) < ranks and not options.cpu
    mode = "one_gpu" if shares else pick_mode(options, gpus, {"": ranks}, _base(options))
    batch, tokens, steps = LOADS[mode]
    if options.layers and options.layers < ranks:
        raise PlanError(f"--layers {options.layers}: fewer than the {ranks} ranks")
    made = Plan(
        engine="probe",
        mode=mode,
        batch=options.batch or batch * ranks,
        max_new_tokens=options.max_new_tokens or tokens,
        profile=options.profile,
        profile_steps=options.profile_steps or steps,
        with_stack=False,
        nsys=False,
        gpu_used_mib={},
        launches=[],
    )
    if made.batch % ranks:
        raise PlanError(f"--batch {made.batch}: not a multiple of the {ranks} micro-batches")
    if made.max_new_tokens <= SETTLING_STEPS:
        raise PlanError(f"--max-new-tokens: more than {SETTLING_STEPS}, the first fill the ring")
    made.launches += [_launch(made, options, turn, ranks) for turn in turns]
    return made


def _base(options: Options) -> argfile.ServerArgs:
    return argfile.load(options.root / "server_args_base.txt")


def _launch(made: Plan, options: Options, turn: Turn, ranks: int) -> Launch:
    case = turn.arm.case
    args = load_case(options.root, case)
    label = (args.label or case) + turn.suffix
    graphs = None if made.mode == "cpu" else wants_graphs(args.over(_base(options)))
    logs = options.out / "logs"
    words = ["--ranks", str(ranks), "--send", SENDS.get(case, "blocking")]
    words += ["--graphs", "on" if graphs else "off", "--reps", "1"]
    words += ["--batch", str(made.batch // ranks)]
    words += ["--steps", str(made.max_new_tokens - SETTLING_STEPS)]
    if options.layers:
        words += ["--layers", str(options.layers)]
    if made.mode == "cpu":
        words += ["--device", "cpu"]
    words += ["--json", str(logs / f"{label}_probe.json")]
    words += ["--client-json", str(logs / f"{label}_client.json")]
    if made.profile:
        words += ["--trace", str(options.out / "trace" / label)]
        words += ["--trace-steps", str(made.profile_steps)]
    return Launch(
        label=label,
        case=turn.arm.name,
        place=turn.arm.place,
        round=turn.round,
        block=turn.block,
        python=options.python,
        sglang_version="none",
        args=words,
        argv=[options.python, "-m", "repro_pp_graphs", "probe", *words],
        env={"PYTHONPATH": str(options.root)},
        port=0,
        model="probe",
        pp_size=ranks,
        tp_size=1,
        nodes=1,
        expects_graphs=graphs,
        captured_max_bs=None,
    )

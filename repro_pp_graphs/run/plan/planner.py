"""From options and argument files to the launches of a run: commands, labels, expectations."""

from __future__ import annotations

import copy
from collections import Counter

from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run.plan import attention, case_arguments, graph_batches, sweep
from repro_pp_graphs.run.plan.case_releases import CaseReleases, check_abilities
from repro_pp_graphs.run.plan.mode import pick_mode
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.order import Arm, Turn
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run.plan.sweep import MICRO_BATCH
from repro_pp_graphs.run.plan.ways_out import Unfit
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.case import argfile, needs
from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.machine import listener, network
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release import pp_attention
from repro_pp_graphs.server.release.installed import Prober, Release, version_numbers
from repro_pp_graphs.server.release.release_facts import may_lack_pp_rank
from repro_pp_graphs.server.shims import one_gpu

# --batch, --max-new-tokens, --profile-steps. On GPUs the measured pass has 200 decode steps and
# more; on a CPU a case stays under a minute
FULL_LOAD = (16, 256, 48)
REHEARSAL_LOAD = (8, 48, 24)


class Planner:
    """Builds a Plan of the launches of sglang servers."""

    def __init__(self, options: Options, gpus: list[Gpu], probe: Prober) -> None:
        self.options = options
        self.gpus = gpus
        self.releases = CaseReleases(options, probe)
        self.nodes = 1  # that the servers are spread over, by srun

    def plan(self, turns: list[Turn]) -> Plan:
        """The run with its launches in that order.

        Raises PlanError, ArgFileError, FlagError or ProbeError.
        """
        options = self.options
        base = argfile.load(options.root / "server_args_base.txt")
        if options.pp_size:
            base.set("--pp-size", str(options.pp_size))
        if options.tp_size:
            base.set("--tp-size", str(options.tp_size))
        self.nodes = self._spread(base)
        by_case = {case: self._ranks(base, case) for case in options.cases}
        ranks = max(by_case.values())
        mode = pick_mode(options, self.gpus, by_case, base)
        load = REHEARSAL_LOAD if mode == "cpu" else FULL_LOAD
        plan = Plan(
            mode=mode,
            batch=options.batch or load[0],
            max_new_tokens=options.max_new_tokens or load[1],
            # nsys and torch's profiler cannot both subscribe to CUPTI
            profile=options.profile and not options.nsys,
            profile_steps=options.profile_steps or load[2],
            with_stack=options.with_stack,
            nsys=options.nsys,
            gpu_used_mib={g.uuid: g.used_mib for g in self.gpus if mode != "cpu"},
            launches=[],
        )
        if mode == "one_gpu":
            plan.ranks_per_gpu = options.ranks_per_gpu or -(-ranks // len(self.gpus))
        plan.mps, plan.sockets = self._mps(mode), options.sockets and mode != "cpu"
        plan.loads = sweep.loads(options.sweep, plan.batch, plan.max_new_tokens)
        plan.profile_loads = sweep.profiled(options.profile_loads, plan.loads)
        if plan.loads:
            plan.batch, plan.max_new_tokens = plan.loads[0].batch, plan.loads[0].max_new_tokens
        arms = dict.fromkeys(turn.arm for turn in turns)
        first = {arm: self._launch(plan, base, arm) for arm in arms}
        plan.launches += [_at(first[turn.arm], turn) for turn in turns]
        labels = Counter(launch.label for launch in plan.launches)
        if twice := [label for label, times in labels.items() if times > 1]:
            raise PlanError(f"two cases share the label {twice[0]}: mend '# label:' in their files")
        return plan

    def _spread(self, base: ServerArgs) -> int:
        """Nodes that the run starts servers on, as --nnodes of `base` too; 1 for this one alone,
        where further ones are started by hand if the argument files name some."""
        nodes = self.options.nodes or self.options.allocated
        if nodes > 1:
            base.set("--nnodes", str(nodes))
        return nodes

    def _place(self, args: ServerArgs, plan: Plan, ranks: int) -> list[str]:
        """Where ranks run and how they talk, as the options say, into their environment; notes."""
        if plan.mode == "one_gpu":
            args.env[one_gpu.GPUS_ENV] = str(-(-ranks // plan.ranks_per_gpu))
        if plan.sockets:
            args.env.update(network.SOCKETS)
        elif self.options.sockets:
            return ["--sockets does nothing on a CPU: ranks talk over gloo"]
        return []

    def _mps(self, mode: str) -> bool:
        """Whether an MPS daemon is to be started. Raises PlanError where there is no use for it."""
        if self.options.mps and mode != "one_gpu":
            raise PlanError(
                "--mps is for ranks that share a GPU (--ranks-per-gpu N, or --one-gpu with fewer "
                "GPUs than ranks): leave it out"
            )
        return self.options.mps

    def _ranks(self, base: ServerArgs, case: str) -> int:
        """Ranks of a case on this machine."""
        args = case_arguments.load_case(self.options.root, case).over(base)
        if self.options.pp_size:
            args.set("--pp-size", str(self.options.pp_size))
        if self.options.tp_size:
            args.set("--tp-size", str(self.options.tp_size))
        pp_size, tp_size = case_arguments.sizes(args, case)
        return pp_size * tp_size // args.get_int("--nnodes", 1)

    def _arguments(self, plan: Plan, base: ServerArgs, case: str) -> ServerArgs:
        """A case's arguments over those of all cases, with what the options say."""
        options = self.options
        args = case_arguments.load_case(options.root, case).over(
            case_arguments.under_overlay(base, plan.mode)
        )
        if options.pp_size:
            args.set("--pp-size", str(options.pp_size))
        if options.tp_size:
            args.set("--tp-size", str(options.tp_size))
        if options.port:
            args.set("--port", str(options.port))
        if options.backend:
            args.set(pp_attention.OPTION, options.backend)
        if options.fraction:
            args.set(weights.FRACTION, f"{options.fraction:g}")
        case_arguments.choose_model(args, options, plan.mode)
        case_arguments.check_json(args, case)
        return args

    def _with_shims(
        self, args: ServerArgs, plan: Plan, numbers: tuple[int, ...], pp_size: int
    ) -> ServerArgs:
        """With the shims that the run adds to those of the case."""
        if pp_size > 1 and may_lack_pp_rank(numbers):
            args = ServerArgs(env={shim_names.ENV_NAME: "trace_rank"}).over(args)
        if pp_size > 1 and self.options.pp_clock:
            args = ServerArgs(env={shim_names.ENV_NAME: "pp_clock"}).over(args)
        if args.get("--load-format") == "dummy" and weights.chooses_by_bias(args):
            args = ServerArgs(env={shim_names.ENV_NAME: "even_router"}).over(args)
        if plan.profile_loads:  # several profiles in one server
            args = ServerArgs(env={shim_names.ENV_NAME: "keep_profilers"}).over(args)
        return args

    def _launch(self, plan: Plan, base: ServerArgs, arm: Arm) -> Launch:
        """The first launch of an arm; its label is what the case's file says."""
        options, case = self.options, arm.case
        args = self._arguments(plan, base, case)
        pp_size, tp_size = case_arguments.sizes(args, case)
        if args.get_int("--dp-size", 1) > 1 and "--enable-dp-attention" not in args.flags:
            raise PlanError("--dp-size: replicas of the pipeline are not supported; leave it out")
        python = self.releases.python_of(args, case, plan.mode, self._ranks(base, case))
        release = self.releases.ask(python, args)
        notes = self.releases.serves_gpus(python, release, plan.mode)
        not_made = args.release or ("" if args.python else options.not_made)
        version = release.version if release else not_made
        numbers = version_numbers(version)
        if plan.mode == "cpu" and (numbers >= (0, 5, 19) or not numbers):
            args.env.setdefault(
                "SGLANG_CPU_OMP_THREADS_BIND", case_arguments.cpu_binding(pp_size * tp_size)
            )
        args = self._with_shims(args, plan, numbers, pp_size)
        notes += self._place(args, plan, pp_size * tp_size // args.get_int("--nnodes", 1))
        expects_graphs = None if plan.mode == "cpu" else graph_batches.wants_graphs(args)
        batch = max([plan.batch, *(load.batch for load in plan.loads)])
        loads, said = sweep.micro_batches(args, plan.loads)
        notes += said
        notes += [] if plan.loads else graph_batches.split_evenly(args, batch)
        if expects_graphs:
            notes += graph_batches.cover_batch(args, min(args.get_int(MICRO_BATCH, batch), batch))
        notes += needs.idle(args, plan.mode)
        own = case_arguments.load_case(options.root, case)
        notes += case_arguments.replaced(base, own, plan.mode)
        others = [name for name in options.cases if name != case]

        def read_others() -> dict[str, ServerArgs]:
            return {name: self._arguments(plan, base, name) for name in others}

        check_abilities(args, case, release, version, options, others=read_others)
        args, renamed = self.releases.fit(args, release, version)
        notes += renamed
        module, changed = _module(args)
        notes += changed
        launch = Launch(
            label=args.label or case,
            case=arm.name,
            place=arm.place,
            round=1,
            python=python,
            sglang_version=version or "unknown",
            args=args.argv(),
            argv=[python, "-m", module, *args.argv()],
            env=args.env,
            host=args.get("--host", listener.LOOPBACK),
            port=case_arguments.port_of(args, case),
            model=args.get("--model-path"),
            pp_size=pp_size,
            tp_size=tp_size,
            nodes=args.get_int("--nnodes", 1),
            started_nodes=self.nodes,
            expects_graphs=expects_graphs,
            captured_max_bs=graph_batches.captured_max_bs(args) if expects_graphs else None,
            notes=notes,
            loads=loads,
        )
        self._check_attention(launch, release, options.model or base.get("--model-path"))
        return launch

    def _check_attention(self, launch: Launch, release: Release | None, model: str) -> None:
        """Raises Unfit where the server would die of its attention backend; a note where it may."""
        place = release.place if release else None
        certain, maybe = attention.trouble(launch, place, self.gpus)
        launch.notes += [maybe] * bool(maybe)
        if certain:
            raise Unfit(certain, model, (launch.pp_size, launch.tp_size))


def _module(args: ServerArgs) -> tuple[str, list[str]]:
    """What Python runs as the server: sglang's own entry, or the one that puts the shims in first;
    notes on what these change. Raises PlanError for a shim that there is not."""
    if not args.env.get(shim_names.ENV_NAME):
        return "sglang.launch_server", []
    # pp_clock is on by default
    named = [name for name in case_arguments.shims_of(args) if name != "pp_clock"]
    notes = [f"the server is changed (shim {name}): {shim_names.REASONS[name]}" for name in named]
    return "repro_pp_graphs.server.launch", notes


def _at(launch: Launch, turn: Turn) -> Launch:
    """An arm's launch at its place in the order."""
    found = copy.deepcopy(launch)
    found.label += turn.suffix
    found.round, found.block = turn.round, turn.block
    return found

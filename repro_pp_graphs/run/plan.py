"""From options and argument files to the launches of a run: commands, labels, expectations."""

from __future__ import annotations

import copy
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.record import Launch, Plan
from repro_pp_graphs.run import attention, environments, sweep
from repro_pp_graphs.run.options import HIGHEST, Options
from repro_pp_graphs.run.order import Arm, Turn
from repro_pp_graphs.run.refusal import PlanError
from repro_pp_graphs.run.sweep import CAPACITY, MICRO_BATCH
from repro_pp_graphs.run.ways_out import Unfit
from repro_pp_graphs.server import (
    argfile,
    case_needs,
    flags,
    listener,
    network,
    pp_attention,
    pp_loop,
    shims,
)
from repro_pp_graphs.server.argfile import ServerArgs
from repro_pp_graphs.server.case_needs import Abilities
from repro_pp_graphs.server.gpus import Gpu
from repro_pp_graphs.server.release import Prober, Release, version_numbers, without_gpus
from repro_pp_graphs.server.release_facts import may_lack_pp_rank, pp_sends
from repro_pp_graphs.server.shims import one_gpu

OVERLAYS = Path(__file__).resolve().parents[1] / "server" / "overlays"
# --batch, --max-new-tokens, --profile-steps. On GPUs the measured pass has 200 decode steps and
# more; on a CPU a case stays under a minute
FULL_LOAD = (16, 256, 48)
REHEARSAL_LOAD = (8, 48, 24)
MOST_RANKS = HIGHEST["--pp-size"]  # in any direction; also the most nodes


def pick_mode(options: Options, gpus: list[Gpu], ranks: int, base: ServerArgs) -> str:
    """gpu, one_gpu or cpu. Raises Unfit where there are some GPUs, but fewer than ranks."""
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
    raise Unfit(
        f"{len(gpus)} GPU(s) {'assumed' if gpus[0].assumed else 'visible'}, but tp x pp asks for "
        f"{ranks}",
        options.model or base.get("--model-path"),
        (ranks // base.get_int("--tp-size", 1), base.get_int("--tp-size", 1)),
    )


def load_case(root: Path, name: str) -> ServerArgs:
    """server_args_<name>.txt. Raises PlanError with the cases there are."""
    path = root / f"server_args_{name}.txt"
    if not re.fullmatch(r"[\w.-]+", name):
        raise PlanError(f"--cases {name}: a case's name has letters, digits, . _ -")
    if not path.is_file():
        prefix = "server_args_"
        known = sorted(p.stem[len(prefix) :] for p in root.glob(f"{prefix}*.txt"))
        known = [case for case in known if case != "base"]
        raise PlanError(f"--cases {name}: there is no {path.name}; there are {', '.join(known)}")
    args = argfile.load(path)
    args.label = args.label or f"CASE_{name}"
    return args


def _overlay(name: str) -> ServerArgs:
    return argfile.load(OVERLAYS / f"{name}.txt")


def _under_overlay(base: ServerArgs, mode: str) -> ServerArgs:
    """The arguments of all cases in a mode: on shared GPUs what the overlay gives for who names
    none is as the base file has it."""
    if mode == "gpu":
        return base
    args = _overlay(mode).over(base)
    for flag in (CAPACITY, pp_attention.OPTION) if mode == "one_gpu" else ():
        if flag in base.flags:
            args.set(flag, base.get(flag))
    return args


def _shape_folder(options: Options, shape: str) -> Path:
    return options.root / ".state" / "models" / shape


def _choose_model(args: ServerArgs, options: Options, mode: str) -> None:
    """Settle --model-path: as given, or a folder without weights made here."""
    if options.model:
        args.set("--model-path", options.model)
    dummy = options.dummy_weights or (mode == "cpu" and not options.model)
    if dummy:
        model = args.get("--model-path")
        args.set("--load-format", "dummy")
        if not Path(model, "config.json").is_file():
            shape = "tiny" if mode == "cpu" and not options.model else model_folder.shape_of(model)
            if shape is None:
                raise PlanError(
                    f"--dummy-weights: no shape for '{model}'; use --model with a folder that "
                    f"holds a config.json, or one of {', '.join(model_folder.shapes())}"
                )
            args.set("--model-path", str(_shape_folder(options, shape)))
        args.env["HF_HUB_OFFLINE"] = "1"
    if options.layers:
        args.set("--json-model-override-args", json.dumps({"num_hidden_layers": options.layers}))


def wants_graphs(args: ServerArgs) -> bool:
    """Whether these arguments leave decode CUDA graphs on."""
    off = ("--disable-cuda-graph", "--disable-decode-cuda-graph")
    disabled = args.get("--cuda-graph-backend-decode") == "disabled"
    disabled |= _decode_config(args).get("backend") == "disabled"
    return not disabled and not any(flag in args.flags for flag in off)


def _decode_config(args: ServerArgs) -> dict[str, Any]:
    """The decode part of --cuda-graph-config; empty where there is none or it is no JSON."""
    try:
        found = json.loads(args.get("--cuda-graph-config", "{}"))["decode"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_json(args: ServerArgs, case: str) -> None:
    """Raises PlanError where an argument that holds a JSON object holds none."""
    for name in ("--json-model-override-args", "--cuda-graph-config"):
        try:
            found = json.loads(args.get(name, "{}"))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise PlanError(f"case {case}: {name}: its value is no JSON object; quote it with ''")


def _captured_max_bs(args: ServerArgs) -> int | None:
    for flag in ("--cuda-graph-bs", "--cuda-graph-bs-decode"):
        if flag in args.flags:
            sizes = args.flags[flag]
            if not sizes or not all(size.isdigit() for size in sizes):
                raise PlanError(f"{flag} {' '.join(sizes)}: name whole numbers, as 1 2 4 8")
            return max(map(int, sizes))
    for flag in ("--cuda-graph-max-bs", "--cuda-graph-max-bs-decode"):
        if flag in args.flags:
            return args.get_int(flag, 0)
    return None


def _split_evenly(args: ServerArgs, batch: int) -> list[str]:
    """Cap micro-batches at the load's even share of those in flight, unless the files say more;
    returns notes.

    Without it a server fills them by when prompts get tokenized: 8 prompts run as 1 + 7 in one
    launch and 4 + 4 in the next. Its own cap is --max-running-requests / pp: even where that is
    below the load.
    """
    in_flight = sweep.in_flight(args)
    if args.get_int("--pp-size", 1) == 1 or MICRO_BATCH in args.flags:
        return []
    if args.get_int("--max-running-requests", batch) < batch:
        return []
    share = -(-batch // in_flight)
    args.set(MICRO_BATCH, str(share))
    notes = [f"{MICRO_BATCH} {share}: set, so that every launch splits the load alike"]
    if (used := -(-batch // share)) < in_flight:
        full = share * in_flight
        notes.append(f"--batch {batch} fills {used} of {in_flight} micro-batches, {full} all")
    return notes


def _cover_batch(args: ServerArgs, batch: int) -> list[str]:
    """Make the captured graphs cover a micro-batch of `batch`; returns notes."""
    captured = _captured_max_bs(args)
    if captured is None or captured >= batch:
        return []
    for flag in ("--cuda-graph-max-bs", "--cuda-graph-max-bs-decode"):
        if flag in args.flags:
            args.set(flag, str(batch))
            return [f"{flag} raised from {captured} to {batch}, the size of the load's batch"]
    return [
        f"graphs are captured up to batch {captured}, the load may form one of {batch}: "
        "micro-batches beyond run eagerly and fail the case"
    ]


def _sizes(args: ServerArgs, case: str) -> tuple[int, int]:
    """Pipeline and tensor parallel size. Raises PlanError unless sglang puts as many ranks on
    every node, and at least one."""
    sizes = {name: args.get_int(name, 1) for name in ("--pp-size", "--tp-size", "--nnodes")}
    for name, value in sizes.items():
        if not 0 < value <= MOST_RANKS:
            fault = "at least 1" if value < 1 else f"the highest is {MOST_RANKS}"
            raise PlanError(f"case {case}: {name} {value}: {fault}; mend it in server_args_*.txt")
    pp_size, tp_size, nodes = sizes.values()
    # whole stages a node, or whole nodes a stage, among which its TP ranks are dealt out
    if pp_size % nodes and (nodes % pp_size or tp_size % (nodes // pp_size)):
        raise PlanError(
            f"case {case}: --nnodes {nodes} for pp {pp_size} x tp {tp_size}: some nodes would get "
            "no rank, or fewer than others; --nnodes must divide --pp-size, or be a multiple of it "
            "that leaves every node as many TP ranks"
        )
    return pp_size, tp_size


def _port(args: ServerArgs, case: str) -> int:
    port = args.get_int("--port", 30000)
    if not 0 < port < 65536:
        raise PlanError(
            f"case {case}: --port {port}: from 1 to 65535; mend it in server_args_*.txt"
        )
    return port


def _cpu_binding(ranks: int) -> str:
    """One core a rank, round-robin: `0|1` (releases from 0.5.19 refuse more ranks than NUMA
    nodes without it; older ones take one value a TP rank)."""
    cores = sorted(os.sched_getaffinity(0))
    return "|".join(str(cores[rank % len(cores)]) for rank in range(ranks))


class Planner:
    """Builds a Plan; asks each interpreter once for its release."""

    def __init__(self, options: Options, gpus: list[Gpu], probe: Prober) -> None:
        self.options = options
        self.gpus = gpus
        self.probe = probe
        self.nodes = 1  # that the servers are spread over, by srun
        self.not_made: list[str] = []  # releases that cases name whose environments are not there

    def plan(self, turns: list[Turn]) -> Plan:
        """The run with its launches in that order.

        Raises PlanError, ArgFileError, FlagError or ProbeError.
        """
        options = self.options
        base = argfile.load(options.root / "server_args_base.txt")
        if options.pp_size:
            base.set("--pp-size", str(options.pp_size))
        self.nodes = self._spread(base)
        ranks = max(self._ranks(base, case) for case in options.cases)
        mode = pick_mode(options, self.gpus, ranks, base)
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
        args = load_case(self.options.root, case).over(base)
        if self.options.pp_size:
            args.set("--pp-size", str(self.options.pp_size))
        pp_size, tp_size = _sizes(args, case)
        return pp_size * tp_size // args.get_int("--nnodes", 1)

    def _python(self, args: ServerArgs, case: str, mode: str, gpus: int) -> str:
        """The interpreter of a case, of a release if it names one; `gpus`: as many as it needs.

        Raises PlanError.
        """
        root, release = self.options.root, args.release
        if not release:
            return args.python or self.options.python
        name = f"server_args_{case}.txt: RELEASE={release}"
        if mode == "cpu":
            raise PlanError(
                f"{name}: a rehearsal on the CPU runs one sglang, the one it is called with: leave "
                f"this case out, or see its plan: --dry-run --gpus {gpus}"
            )
        if release not in environments.releases(root):
            known = ", ".join(environments.releases(root))
            raise PlanError(
                f"{name}: there is no lock for it, only for {known}; PYTHON=/path names another"
            )
        return environments.python_of(root, release)

    def _ask(self, python: str, args: ServerArgs) -> Release | None:
        """The release of a case's interpreter; None where its environment is not made yet, or not
        whole. Raises ProbeError."""
        options = self.options
        if args.release and not environments.is_made(options.root, args.release):
            self.not_made.append(args.release)
            return None
        if options.not_made and python == options.python:
            return None
        return self.probe(python, args.env)

    def _fit(
        self, args: ServerArgs, release: Release | None, version: str
    ) -> tuple[ServerArgs, list[str]]:
        """The arguments as the release knows them, and notes. Of one that is not installed yet its
        names are known where a list of them is kept. Raises FlagError."""
        if release:
            return flags.fit(args, release)
        asks = f"{f'sglang {version}' if version else 'sglang'} is not installed yet: whether it"
        names = environments.arguments(self.options.root, version)
        if not names:
            return args, [f"{asks} takes these arguments, a real run checks"]
        args, renamed = flags.fit(args, Release(version, names, Path()))
        note = f"{asks} takes the values of these arguments, a real run checks; it has their names"
        return args, [*renamed, note]

    def _serves_gpus(self, python: str, release: Release | None, mode: str) -> list[str]:
        """Notes on an interpreter that serves none. Raises PlanError where the GPUs are here."""
        if mode == "cpu" or release is None or not release.cpu_torch:
            return []
        text = without_gpus(python, release.cpu_torch)
        if not self.options.gpus:
            raise PlanError(text)
        return [text]

    def _launch(self, plan: Plan, base: ServerArgs, arm: Arm) -> Launch:
        """The first launch of an arm; its label is what the case's file says."""
        options, case = self.options, arm.case
        args = load_case(options.root, case).over(_under_overlay(base, plan.mode))
        if options.pp_size:
            args.set("--pp-size", str(options.pp_size))
        if options.port:
            args.set("--port", str(options.port))
        if options.backend:
            args.set(pp_attention.OPTION, options.backend)
        _choose_model(args, options, plan.mode)
        _check_json(args, case)
        pp_size, tp_size = _sizes(args, case)
        if args.get_int("--dp-size", 1) > 1 and "--enable-dp-attention" not in args.flags:
            raise PlanError("--dp-size: replicas of the pipeline are not supported; leave it out")
        python = self._python(args, case, plan.mode, self._ranks(base, case))
        release = self._ask(python, args)
        notes = self._serves_gpus(python, release, plan.mode)
        not_made = args.release or ("" if args.python else options.not_made)
        version = release.version if release else not_made
        numbers = version_numbers(version)
        if plan.mode == "cpu" and (numbers >= (0, 5, 19) or not numbers):
            args.env.setdefault("SGLANG_CPU_OMP_THREADS_BIND", _cpu_binding(pp_size * tp_size))
        if pp_size > 1 and may_lack_pp_rank(numbers):
            args = ServerArgs(env={shims.ENV_NAME: "trace_rank"}).over(args)
        if pp_size > 1 and options.pp_clock:
            args = ServerArgs(env={shims.ENV_NAME: "pp_clock"}).over(args)
        if plan.profile_loads:  # several profiles in one server
            args = ServerArgs(env={shims.ENV_NAME: "keep_profilers"}).over(args)
        notes += self._place(args, plan, pp_size * tp_size // args.get_int("--nnodes", 1))
        expects_graphs = None if plan.mode == "cpu" else wants_graphs(args)
        batch = max([plan.batch, *(load.batch for load in plan.loads)])
        loads, said = sweep.micro_batches(args, plan.loads)
        notes += said
        notes += [] if plan.loads else _split_evenly(args, batch)
        if expects_graphs:
            notes += _cover_batch(args, min(args.get_int(MICRO_BATCH, batch), batch))
        notes += case_needs.idle(args, plan.mode)
        _check_abilities(args, case, release, version, options)
        args, renamed = self._fit(args, release, version)
        notes += renamed
        module = "sglang.launch_server"
        if args.env.get(shims.ENV_NAME):
            module = "repro_pp_graphs.server.launch"
            named = [name for name in _shim_names(args) if name != "pp_clock"]  # on by default
            notes += [
                f"the server is changed (shim {name}): {shims.REASONS[name]}" for name in named
            ]
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
            port=_port(args, case),
            model=args.get("--model-path"),
            pp_size=pp_size,
            tp_size=tp_size,
            nodes=args.get_int("--nnodes", 1),
            started_nodes=self.nodes,
            expects_graphs=expects_graphs,
            captured_max_bs=_captured_max_bs(args) if expects_graphs else None,
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


def _at(launch: Launch, turn: Turn) -> Launch:
    """An arm's launch at its place in the order."""
    found = copy.deepcopy(launch)
    found.label += turn.suffix
    found.round, found.block = turn.round, turn.block
    return found


def _check_abilities(
    args: ServerArgs, case: str, release: Release | None, version: str, options: Options
) -> None:
    """Raises PlanError where the release, installed or not, lacks what the case or --sends asks
    for beyond arguments."""
    can = case_needs.installed(release) if release else case_needs.looked_up(version)
    installable = environments.releases(options.root)
    if can and options.sends != "as_released":
        _check_sends(options.sends, can)
    if can and (lack := case_needs.unmet(args, can, installable)):
        raise PlanError(f"server_args_{case}.txt: {lack}")


def _check_sends(asked: str, release: Abilities) -> None:
    """Raises PlanError where the release sends synchronously already: it has no second way."""
    if release.loop.misfit == pp_loop.ALREADY_SYNCHRONOUS:
        how = pp_sends(version_numbers(release.version))
        named = f"are {how} as released" if how != "unknown" else "hold the host as released"
        raise PlanError(
            f"--sends {asked}: PP sends of sglang {release.version} {named}: there is no second "
            "way to compare with; leave --sends out, or use 0.5.7 or newer (--release 0.5.23, "
            "--python)"
        )


def _shim_names(args: ServerArgs) -> list[str]:
    names = shims.names_in(args.env)
    unknown = [name for name in names if name not in shims.REASONS]
    if unknown:
        raise PlanError(
            f"{shims.ENV_NAME}={unknown[0]} in server_args_*.txt: no such shim; one of "
            f"{', '.join(shims.REASONS)}"
        )
    return names

"""A case's arguments as its file and the options have them, and what is wrong with them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.run.plan.options import HIGHEST, Options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run.plan.sweep import CAPACITY
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.case import argfile
from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.release import pp_attention

OVERLAYS = Path(__file__).resolve().parents[2] / "server" / "overlays"
MOST_RANKS = HIGHEST["--pp-size"]  # in any direction; also the most nodes


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


def under_overlay(base: ServerArgs, mode: str) -> ServerArgs:
    """The arguments of all cases in a mode: on shared GPUs what the overlay gives for who names
    none is as the base file has it."""
    if mode == "gpu":
        return base
    args = argfile.load(OVERLAYS / f"{mode}.txt").over(base)
    for flag in (CAPACITY, pp_attention.OPTION) if mode == "one_gpu" else ():
        if flag in base.flags:
            args.set(flag, base.get(flag))
    return args


def replaced(base: ServerArgs, case: ServerArgs, mode: str) -> list[str]:
    """A note on what of server_args_base.txt the overlay of a mode replaces in a case, but for its
    ranks, which the plan shows; a case's own file has the last word."""
    ours = _told(under_overlay(base, mode))
    own = {*_told(case), "--pp-size", "--tp-size", shim_names.ENV_NAME}
    found = [
        f"{name} {ours[name]} (not {value})"
        for name, value in _told(base).items()
        if name not in own and value != ours[name]
    ]
    who = "a rehearsal" if mode == "cpu" else "a run on shared GPUs"
    text = f"of server_args_base.txt {who} replaces: {', '.join(found)}"
    return [f"{text}; what a case's own file says stays"] if found else []


def _told(args: ServerArgs) -> dict[str, str]:
    """Arguments and variables by name, each with its value."""
    return {**{k: " ".join(v) or "set" for k, v in args.flags.items()}, **args.env}


def choose_model(args: ServerArgs, options: Options, mode: str) -> None:
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
            args.set("--model-path", str(options.root / ".state" / "models" / shape))
        args.env["HF_HUB_OFFLINE"] = "1"
    if options.layers:
        args.set("--json-model-override-args", json.dumps({"num_hidden_layers": options.layers}))


def check_json(args: ServerArgs, case: str) -> None:
    """Raises PlanError where an argument that holds a JSON object holds none."""
    for name in ("--json-model-override-args", "--cuda-graph-config"):
        try:
            found = json.loads(args.get(name, "{}"))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise PlanError(f"case {case}: {name}: its value is no JSON object; quote it with ''")


def sizes(args: ServerArgs, case: str) -> tuple[int, int]:
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


def port_of(args: ServerArgs, case: str) -> int:
    """Where the server answers. Raises PlanError where that is no port."""
    port = args.get_int("--port", 30000)
    if not 0 < port < 65536:
        raise PlanError(
            f"case {case}: --port {port}: from 1 to 65535; mend it in server_args_*.txt"
        )
    return port


def cpu_binding(ranks: int) -> str:
    """One core a rank, round-robin: `0|1` (releases from 0.5.19 refuse more ranks than NUMA
    nodes without it; older ones take one value a TP rank)."""
    cores = sorted(os.sched_getaffinity(0))
    return "|".join(str(cores[rank % len(cores)]) for rank in range(ranks))


def shims_of(args: ServerArgs) -> list[str]:
    """The shims that the arguments name. Raises PlanError for one that there is not."""
    names = shim_names.names_in(args.env)
    unknown = [name for name in names if name not in shim_names.REASONS]
    if unknown:
        raise PlanError(
            f"{shim_names.ENV_NAME}={unknown[0]} in server_args_*.txt: no such shim; one of "
            f"{', '.join(shim_names.REASONS)}"
        )
    return names

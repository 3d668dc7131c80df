"""What must hold before the first server starts; each failure is one line with its remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from repro_pp_graphs.run.checks import kv_cache
from repro_pp_graphs.run.memory import context, fitting, weights
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine import listener
from repro_pp_graphs.server.machine.gpus import Gpu

TRACE_DISK_GIB = 2.0  # traces of a profile pass, all ranks and the merged one, per launch
MADE_MODELS = (".state", "models")  # the harness writes those when it runs
MPS, MPS_PIPES = "nvidia-cuda-mps-control", "mps/pipe"  # what run_repro.sh starts, and where
MOST_PIPE_PATH = 80  # of 107 bytes that a socket's path may have
BUSY_SHARE = 0.1  # of a GPU's memory in use by others, above which a server would not fit

# asks the hub, or its cache when offline; prints one word
HUB_PROBE = """
import os, sys
import huggingface_hub as hub
from huggingface_hub import utils
name = sys.argv[1]
if isinstance(hub.try_to_load_from_cache(name, "config.json"), str):
    print("cached")
elif os.environ.get("HF_HUB_OFFLINE") == "1":
    print("offline")
else:
    try:
        hub.HfApi().model_info(name, timeout=10)
        hub.hf_hub_download(name, "config.json")
        print("reachable")
    except utils.GatedRepoError:
        print("denied")
    except utils.RepositoryNotFoundError:
        print("unknown")
    except Exception as error:
        print("unreachable")
"""
HUB_REMEDY = {
    "denied": "accept its licence on the hub and export HF_TOKEN",
    "unknown": "check the spelling; a private model needs HF_TOKEN",
    "offline": "HF_HUB_OFFLINE=1 and it is not in the cache; unset it",
    "unreachable": "no network to the hub",
}


def check_ports(plan: Plan) -> list[str]:
    """Every launch's port must be free, at the host that its server will listen at."""
    found = []
    for host, port in sorted({(launch.host, launch.port) for launch in plan.launches}):
        try:
            if listener.is_forbidden(host, port):
                found.append(f"port {port}: this user may not listen there; --port N, from 1024 on")
            elif not listener.is_free(host, port):
                who = listener.owner(host, port, os.getpid()).stranger
                by = f" by {who}" if who else ""
                found.append(
                    f"port {port} is in use{by}: end what listens there "
                    f"(ss -ltnp 'sport = :{port}'), or --port N"
                )
        except listener.UnknownHostError as error:
            found.append(f"{error}: name an address of this machine, as --host 127.0.0.1")
    return found


def check_folders(out: Path) -> list[str]:
    """logs and trace must be folders, or links to folders that are there, and can be written."""
    found = []
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        return [f"{out}: {there} is not a folder; choose another --out"]
    if not os.access(there, os.W_OK | os.X_OK):
        found.append(f"{out}: {there} cannot be written; choose another --out")
    for path in (out / "logs", out / "trace"):
        if path.is_symlink() and not path.exists():
            found.append(
                f"{path}: a link to {path.readlink()}, which is not there: mount or make it"
            )
        elif path.exists() and not path.is_dir():
            found.append(f"{path}: not a folder; move it away, or choose another --out")
    return found


def check_prompts(root: Path) -> list[str]:
    """The client's prompts: it reads them only once the first server is up."""
    path = root / "prompts.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return [f"{path}: {error.strerror}; put a prompt on each of its lines"]
    except UnicodeDecodeError:
        return [f"{path}: not UTF-8; store it anew in that encoding"]
    return [] if text.strip() else [f"{path}: it holds no prompt; put one on each of its lines"]


def check_disk(plan: Plan, out: Path) -> list[str]:
    """Room for logs and traces."""
    needed_gib = 0.1 + (TRACE_DISK_GIB if plan.mode != "cpu" else 0.2) * (
        sum(1 + len(plan.profiled_loads(each)) for each in plan.launches)
        if plan.profile or plan.nsys
        else 0
    )
    there = next(path for path in (out, *out.parents) if path.exists())
    free_gib = shutil.disk_usage(there).free / 2**30
    if free_gib >= needed_gib:
        return []
    return [
        f"{out}: {free_gib:.1f} GiB free, the run may need {needed_gib:.1f}: --out on another "
        "disk, or --no-profile"
    ]


def check_memory(plan: Plan, gpus: list[Gpu]) -> list[str]:
    """GPUs that others fill, and weights or a load that cannot fit."""
    if plan.mode == "cpu":
        return _lacking_cache(plan, [])
    used = weights.used(plan, gpus)
    busy = [
        f"GPU {gpu.index} ({gpu.name}): {gpu.used_mib} of {gpu.total_mib} MiB are taken: end those "
        "processes (nvidia-smi), or choose other GPUs with CUDA_VISIBLE_DEVICES"
        for gpu in used
        if gpu.used_mib > BUSY_SHARE * gpu.total_mib > 0
    ]
    total_bytes = sum(gpu.total_mib for gpu in used) * 2**20
    sizes = {launch.model: weights.on_a_node(launch) for launch in plan.launches}
    more = fitting.MORE_GPUS
    most = max((bytes_ for bytes_ in sizes.values()), default=0)
    if len(gpus) > len(used) and most <= weights.MOST * sum(g.total_mib for g in gpus) * 2**20:
        more = f"all {len(gpus)} GPUs ({fitting.SPLITS})"
    heavy = [
        f"{model}: about {bytes_ / 1e9:.0f} GB of weights for {weights.capacity(used)}, of which "
        f"weights may fill {weights.MOST:.0%}: {more}, a smaller --model"
        f"{_layers(plan, model, used)}"
        for model, bytes_ in sizes.items()
        if bytes_ > weights.MOST * total_bytes > 0
    ]
    full = [
        f"{launch.model}: about {weights.of_fullest(launch)[1] / 1e9:.0f} GB of weights on PP rank "
        f"{weights.of_fullest(launch)[0]}, the fullest, and a GPU has "
        f"{min(gpu.total_mib for gpu in used) * 2**20 / 1e9:.0f} GB, of which weights may fill "
        f"{weights.MOST:.0%}: {fitting.remedies(launch, used, *_tokens(plan))}"
        for launch in plan.launches
        if not heavy and plan.ranks_per_gpu <= 1 and weights.too_full(launch, used)
    ]
    if not heavy and not full:
        full = _lacking_cache(plan, used)
    return busy + heavy + list(dict.fromkeys(full))


def _tokens(plan: Plan) -> tuple[int, int]:
    """Of the largest prompt with its answer, and of the whole load."""
    return kv_cache.of_a_prompt(plan), kv_cache.of_load(plan)


def _layers(plan: Plan, model: str, gpus: list[Gpu]) -> str:
    """`, or --dummy-weights --layers N or fewer`: the layers of a model that fit with the load, in
    every case that runs it; empty where that is not known."""
    ours = [launch for launch in plan.launches if launch.model == model]
    found = [
        fitting.layers_that_fit(each, gpus, *_tokens(plan), plan.ranks_per_gpu) for each in ours
    ]
    known = [layers for layers in found if layers]
    both = fitting.Layers(*map(set.intersection, *known)) if len(known) == len(found) else None
    few = fitting.fewer_layers(ours[0], both)
    return f", or {few}" if few else ""


def _lacking_cache(plan: Plan, gpus: list[Gpu]) -> list[str]:
    """Launches whose KV cache cannot hold a prompt of the load with its answer."""
    found = [kv_cache.lacking(plan, launch, gpus) for launch in plan.launches]
    return [text for text in dict.fromkeys(found) if text]


def check_context(plan: Plan) -> list[str]:
    """A prompt and its answer must fit into the model's context."""
    loads = plan.loads or [client_words.main(plan)]
    found = (context.lacking(launch, loads) for launch in plan.launches)
    return [text for text in dict.fromkeys(found) if text]


def check_layers(plan: Plan) -> list[str]:
    """Every PP rank must get a layer."""
    found = []
    for launch in plan.launches:
        config = weights.config_of(launch)
        text = config.get("text_config")
        layers = {**(text if isinstance(text, dict) else {}), **config}.get("num_hidden_layers")
        if isinstance(layers, int) and 0 < layers < launch.pp_size:
            found.append(
                f"--pp-size {launch.pp_size}: {Path(launch.model).name} has {layers} layers, and "
                "every rank takes at least one: a smaller --pp-size, or more --layers"
            )
    return list(dict.fromkeys(found))


def check_models(plan: Plan) -> list[str]:
    """A local folder must hold a config.json; a hub name must be cached or reachable."""
    problems = []
    asked = set()
    for launch in plan.launches:
        if (launch.model, launch.python) in asked:
            continue
        asked.add((launch.model, launch.python))
        path = Path(launch.model)
        if path.parent.parts[-2:] == MADE_MODELS:
            continue
        if path.is_dir() or launch.model.startswith(("/", ".", "~")):
            if not (path / "config.json").is_file():
                problems.append(f"--model {launch.model}: no config.json there; name its folder")
            continue
        answer = ask_hub(launch)
        if answer in HUB_REMEDY:
            problems.append(
                f"model {launch.model}: {HUB_REMEDY[answer]}; or use --model /local/folder, or "
                "--dummy-weights (same shapes, no download)"
            )
    return problems


def ask_hub(launch: Launch) -> str:
    """cached, reachable, denied, unknown, offline, unreachable; empty where nothing answered."""
    try:
        done = subprocess.run(
            [launch.python, "-c", HUB_PROBE, launch.model],
            env={**os.environ, **launch.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:  # a dry run, before its environment is made
        return ""
    except (OSError, subprocess.TimeoutExpired):
        return "unreachable"
    return done.stdout.strip()


def check_mps(plan: Plan, out: Path) -> list[str]:
    """A daemon of the run's own must be possible, and no other may serve these GPUs."""
    if not plan.mps:
        return []
    found = []
    if not shutil.which(MPS):
        found.append(
            f"--mps: {MPS} is not on the PATH: install it with the driver, or leave --mps out"
        )
    there = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    if (there / "control").exists():
        found.append(
            f"--mps: an MPS daemon is at {there} already: leave --mps out, or have whoever began "
            "it end it"
        )
    if len(os.fsencode(out / MPS_PIPES)) > MOST_PIPE_PATH:
        found.append(
            f"--mps: {out / MPS_PIPES} is too long a path for its sockets: a shorter --out"
        )
    return found


def check_nsys(plan: Plan) -> list[str]:
    """--nsys needs nsys."""
    if not plan.nsys or shutil.which("nsys"):
        return []
    return ["--nsys: nsys is not on the PATH: install Nsight Systems, or leave --nsys out"]


def of_plan(plan: Plan, gpus: list[Gpu], options: Options) -> list[str]:
    """All that stands in the way on any machine with these GPUs."""
    if plan.attached:
        return check_prompts(options.root)
    if plan.engine == "probe":
        return check_memory(plan, gpus)
    return check_prompts(options.root) + check_context(plan) + of_ranks(plan, gpus)


def of_ranks(plan: Plan, gpus: list[Gpu]) -> list[str]:
    """What of it depends on how ranks are placed."""
    splits = dict.fromkeys(map(weights.partition_fault, plan.launches))
    return [text for text in splits if text] + check_layers(plan) + check_memory(plan, gpus)


def of_machine(plan: Plan, options: Options) -> list[str]:
    """All that stands in the way on this one: its folders, disk, programs, ports, its way to the
    hub; cheapest check first."""
    found = check_folders(options.out)
    if plan.engine == "probe" or plan.attached:
        return found + check_disk(plan, options.out)
    found += check_nsys(plan) + check_mps(plan, options.out) + check_ports(plan)
    return found + check_disk(plan, options.out) + check_models(plan)

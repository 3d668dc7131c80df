"""What a run rests on beside its options: the files that it reads, and the machine."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

from repro_pp_graphs.files import DRAFT_SUFFIX, sha256
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.machine.gpus import Gpu

PROMPTS, CLIENT = "prompts.txt", "client_benchmark.py"  # read at every launch of a server
CLIENT_FOLDER = "repro_pp_graphs/client"  # the client's own code


def of(plan: Plan, root: Path) -> dict[str, str]:
    """SHA-256 of each file that the launches read, and of each model folder, by name."""
    if plan.engine == "probe":
        return {}
    found = {PROMPTS: sha256(root / PROMPTS), CLIENT: _client(root)}
    # where the server of --attach has its model is not known to be a folder of this machine
    models = dict.fromkeys(launch.model for launch in plan.launches if not launch.attached)
    return found | {f"model {name}": _folder(Path(name)) for name in models if Path(name).is_dir()}


def changed(plan: Plan, root: Path) -> list[str]:
    """The files that are no longer what they were when the run was planned."""
    now = of(plan, root)
    return [name for name, digest in plan.inputs.items() if now.get(name) != digest]


def _client(root: Path) -> str:
    """A digest of the client's code."""
    digest = hashlib.sha256()
    for path in [root / CLIENT, *sorted((root / CLIENT_FOLDER).glob("*.py"))]:
        digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()


def _folder(folder: Path) -> str:
    """A digest of the names and sizes of a model's files, and of what its JSON files hold:
    weights are too large to be read. A draft (files.py), which another run may just be writing,
    is none of them."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix == DRAFT_SUFFIX or not path.is_file():
            continue
        size = path.stat().st_size
        content = sha256(path) if path.suffix == ".json" else ""
        digest.update(f"{path.relative_to(folder)} {size} {content}\n".encode())
    return digest.hexdigest()


def machine(mode: str, gpus: list[Gpu]) -> dict[str, str]:
    """What must be the same for launches to be compared. Where there are GPUs, their uuids
    identify it; a container's host name changes with every start."""
    found = {"CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} usable"}
    if mode == "cpu":
        return {"host": socket.gethostname(), **found}
    return {**found, "GPUs": ", ".join(f"{gpu.name} {gpu.uuid}" for gpu in gpus)}


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    model = re.search(r"^model name\s*: (.*)", text, re.M)
    return model[1].strip() if model else os.uname().machine

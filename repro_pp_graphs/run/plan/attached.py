"""The plan of --attach: one launch, of a server that is already running and stays so."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

from repro_pp_graphs import files
from repro_pp_graphs.run.plan.options import HIGHEST, Options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run_record import Attached, Launch, Plan
from repro_pp_graphs.server import running
from repro_pp_graphs.server.release.installed import version_numbers
from repro_pp_graphs.server.release.release_facts import PP_IN_TRACE_NAMES_POST

NAME = "attached"  # the case, and its launch's label
LOAD = (4, 128, 48)  # --batch, --max-new-tokens, --profile-steps: small, others may be served
# of what a server says of itself: the arguments that make another model of the same one, and what
# stands for their defaults
MODEL = ("json_model_override_args", "load_format", "quantization", "dtype")
DEFAULTS = (None, "", "auto", "{}")
ROOM_BYTES = 1 << 30  # for the ranks' traces: a rank that cannot write them dies
UNKNOWN = (
    "from outside it cannot be seen whether the decode batches of the measured pass ran in CUDA "
    "graphs (the server's log says so; a profile counts the graphs that it saw), nor how long the "
    "turns of its ranks took in it"
)
ALONE = (
    "nobody else may be profiling it now, which cannot be asked: sglang takes a second profile "
    "and spoils both"
)
ELSEWHERE = "env.txt and its GPUs, torch and NCCL are this machine's, not the server's"


def plan(options: Options) -> Plan:
    """Ask the server and plan its pass. Raises PlanError where it cannot be measured."""
    try:
        host, port = running.split(options.attach)
        place = running.place_of(host, port)
        info = running.info_of(options.attach.rstrip("/"), place.local)
    except running.UnusableError as error:
        raise PlanError(str(error)) from None
    attached = Attached(options.attach.rstrip("/"), place.words, place.local)
    launch = _launch(options, attached, info, host, port)
    profile = options.profile
    if profile and (reason := why_not_profiled(info, launch.sglang_version)):
        attached.limits.append(f"not profiled: {reason}")
        profile = False
    if profile:
        attached.output_dir, attached.folder = _folders(options, place)
        launch.notes += [ALONE, *_about_traces(launch, attached)]
    attached.limits += [UNKNOWN] if attached.local else [UNKNOWN, ELSEWHERE]
    return Plan(
        mode="cpu" if str(info.get("device", "")).startswith("cpu") else "gpu",
        batch=options.batch or LOAD[0],
        max_new_tokens=options.max_new_tokens or LOAD[1],
        profile=profile,
        profile_steps=options.profile_steps or LOAD[2],
        with_stack=options.with_stack,
        nsys=False,
        gpu_used_mib={},
        launches=[launch],
        command=["bash", options.command, *options.given],
    )


def _launch(
    options: Options, attached: Attached, info: dict[str, Any], host: str, port: int
) -> Launch:
    pp_size, tp_size, nodes = (_count(info, name) for name in ("pp_size", "tp_size", "nnodes"))
    return Launch(
        label=NAME,
        case=NAME,
        round=1,
        python=options.python,
        sglang_version=str(info.get("version") or "unknown"),
        args=_arguments(info),
        argv=[],
        env={},
        port=port,
        model=str(info["model_path"]),
        pp_size=pp_size,
        tp_size=tp_size,
        nodes=nodes if pp_size * tp_size % nodes == 0 else 1,
        expects_graphs=None,
        captured_max_bs=None,
        host=host,
        attached=attached,
    )


def _count(info: dict[str, Any], name: str) -> int:
    """A number of ranks or nodes, 1 where the server does not say. Raises PlanError."""
    value = info.get(name)
    if value is None and name == "nnodes":
        return 1
    if not isinstance(value, int) or not 0 < value <= HIGHEST["--pp-size"]:
        raise PlanError(
            f"the server says {name} {reprlib.repr(value)}, which cannot be: give the address of "
            "an sglang server itself"
        )
    return value


def _arguments(info: dict[str, Any]) -> list[str]:
    """What tells its model and layout, as arguments: all else is in the server's own account."""
    found = ["--model-path", str(info["model_path"])]
    found += ["--pp-size", str(info["pp_size"]), "--tp-size", str(info["tp_size"])]
    for name in MODEL:
        if info.get(name) not in DEFAULTS:
            found += [f"--{name.replace('_', '-')}", str(info[name])]
    return found


def why_not_profiled(info: dict[str, Any], version: str) -> str:
    """Why the server's ranks would leave no traces to analyse, and what to do; empty where they
    do."""
    replicas = info.get("dp_size")
    if isinstance(replicas, int) and replicas > 1 and not info.get("enable_dp_attention"):
        return (
            f"its {replicas} data-parallel replicas would write their traces under one name; "
            "attach to a server without --dp-size"
        )
    if info["pp_size"] > 1 and version_numbers(version) and not names_pp(version):
        return (
            f"sglang {version} leaves the PP rank out of its traces' names, so that PP ranks "
            "overwrite one another's; a server that run_repro.sh starts keeps them apart, and so "
            "does 0.5.3.post2"
        )
    return ""


def names_pp(version: str) -> bool:
    """Whether a release writes the PP rank into the names of traces: from 0.5.3.post2 on."""
    numbers, (since, least) = version_numbers(version), PP_IN_TRACE_NAMES_POST
    post = re.search(r"\.post([0-9]{1,9})", version)
    return numbers > since or (numbers == since and int(post[1] if post else 0) >= least)


def _folders(options: Options, place: running.Place) -> tuple[str, str]:
    """What /start_profile is asked to write into, and where that is seen here. Raises PlanError."""
    if options.trace_dir is None:
        folder = place.folder
    else:
        folder = str(options.trace_dir.absolute())
        if not Path(folder).is_dir():
            raise PlanError(
                f"--trace-dir {folder}: no such folder here: make it, where the server sees it "
                "under the same path and may write into it (a rank that cannot write dies)"
            )
    if folder and place.local and (fault := _unfit(Path(folder), place, options.trace_dir)):
        raise PlanError(
            f"{fault}: a rank that cannot write its trace dies; name another folder with "
            "--trace-dir, or --no-profile"
        )
    return (folder if options.trace_dir else ""), folder


def _unfit(folder: Path, place: running.Place, named: Path | None) -> str:
    """Why a rank might not be able to write its trace there; empty for no reason seen."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if full := files.low_space(there, below=ROOM_BYTES):
        return full
    # its own folder is its own affair
    may = named is None or running.may_write(place, folder)
    return "" if may else f"{folder}: the server's user may not write there"


def _about_traces(launch: Launch, attached: Attached) -> list[str]:
    """Where the ranks' traces go, and which of them this machine sees."""
    where = attached.output_dir or attached.folder
    found = [
        f"the ranks write their traces to {where}"
        if where
        else "the ranks write their traces to the server's own folder "
        f"({running.FOLDER_VARIABLE}, else {running.FOLDER}), which is not seen from here: you "
        "will be asked to copy them. --trace-dir names a folder that both see"
    ]
    if launch.nodes > 1:
        found.append(
            f"{launch.nodes} nodes: the traces of {launch.ranks} of "
            f"{launch.pp_size * launch.tp_size} ranks are awaited; copy the others' into the "
            "run's trace folder (docs/several_hosts.md)"
        )
    return found

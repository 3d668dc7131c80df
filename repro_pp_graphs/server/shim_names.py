"""The shims by name: why each is there, and the environment variable that names those of a launch.

Apart from shims/, which has their code: a plan names them, and needs none of it.
"""

from __future__ import annotations

from collections.abc import Mapping

ENV_NAME = "REPRO_SHIMS"

# name -> why it is there (shown by --dry-run and stored with the run)
REASONS = {
    "cpu": "sglang runs on a CPU, without its CUDA kernel package",
    "one_gpu": "several ranks share a GPU, which NCCL refuses otherwise",
    "trace_rank": "the names of trace files get the PP rank, which releases before 0.5.3.post2 "
    "leave out: their ranks overwrite one another's files",
    "keep_profilers": "a finished torch profiler is kept: freeing it while another records can "
    "crash",
    "even_router": "dummy weights: the bias by which DeepSeek's router chooses experts is 0; "
    "random, it makes all tokens choose the same",
    "pp_clock": "the waits of every turn are timed, and messages numbered in a profile",
    "sync_send": "PP sends hold the host and follow in the order of sglang 0.5.2",
    "event_send": "the sends of sync_send, with pinned memory and CUDA events: a remedy",
    "comm_stream": "PP sends on a CUDA stream of their own, before 0.5.21: a remedy",
    "batched_p2p": "a turn's PP sends and receives in one batch_isend_irecv: a remedy",
}


def active(name: str) -> str:
    """What a rank says in the server's log once a shim has changed it."""
    return f"repro shim {name} is active"


def names_in(env: Mapping[str, str]) -> list[str]:
    """The shims that an environment's REPRO_SHIMS names."""
    return [name for name in env.get(ENV_NAME, "").split(",") if name]


def for_import(env: Mapping[str, str]) -> dict[str, str]:
    """A server's environment with those shims only that its import of sglang needs."""
    others = {name: value for name, value in env.items() if name != ENV_NAME}
    return for_cpu(others) if "cpu" in names_in(env) else others


def for_cpu(env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which sglang can be imported without GPUs, as a rehearsal does."""
    return {**env, ENV_NAME: "cpu"}

"""Launches and plans of large models, and the GPUs that they are to fit on."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import made_up_run
from made_up_run import plan

from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine.gpus import Gpu

H100_MIB = 81559
launch = partial(
    made_up_run.launch,
    **{"python": sys.executable, "port": 30000, "model": "meta-llama/Llama-3.1-70B-Instruct"},
    **{"pp_size": 4, "expects_graphs": True, "captured_max_bs": 64},
)


def h100s(count: int, used_mib: int = 0) -> list[Gpu]:
    return [Gpu(str(n), f"GPU-{n}", "NVIDIA H100", H100_MIB, used_mib) for n in range(count)]


def deep(release: str, *args: str, **changes) -> Launch:
    """DeepSeek-V3 over eight GPUs: twelve of its layers on the last rank in 0.5.2, eight since."""
    fields = {"model": "deepseek-ai/DeepSeek-V3", "pp_size": 8, "sglang_version": release}
    return launch(**{**fields, "args": ["--mem-fraction-static", "0.85", *args], **changes})


def h200s(count: int) -> list[Gpu]:
    return [Gpu(str(n), f"GPU-{n}", "NVIDIA H200", 143771, 0) for n in range(count)]


NEARLY_FULL = ["--mem-fraction-static", "0.8505"]  # 72.7 GB of weights, and some 260 tokens


def asking(*args: str, batch: int = 16, tokens: int = 256, **changes) -> Plan:
    """Llama-3.1-70B over two GPUs, and its load."""
    made = plan(launch(pp_size=2, args=list(args)), launch(pp_size=2, args=list(args), label="B"))
    return replace(made, batch=batch, max_new_tokens=tokens, **changes)

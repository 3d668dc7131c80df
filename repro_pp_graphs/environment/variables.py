"""The environment variables that matter to sglang, NCCL, CUDA and Python."""

from __future__ import annotations

import os
import re

from repro_pp_graphs.environment.facts import Facts

_SHOWN = re.compile(
    "(?:NCCL|CUD[AN]+|CUBLAS|NVSHMEM|SGLANG|SGL|HF|HUGGING|TRANSFORMERS|TOKENIZERS|OMP|MKL|KMP|GOMP"
    "|OPENBLAS|UCX|GLOO|FI|FLASHINFER|TRITON|DG|DEEPEP|MC|MOONCAKE|KINETO|VLLM|RAY|SLURM|CONDA|LD"
    "|MASTER|MALLOC|HIP|HSA|ROCM|GPU|PYTORCH)_|NVIDIA_[^R]|TORCH|PYTHON|(?:TEARDOWN_|DISABLE_)?CUPTI"
    "|(?:LOCAL_)?RANK=|WORLD_SIZE=|VIRTUAL_ENV=|PATH=|[a-zA-Z]+_(?:proxy|PROXY)="
)


def collect(facts: Facts) -> None:
    """The section "environment"."""
    for entry in sorted(f"{name}={value}" for name, value in os.environ.items()):
        if _SHOWN.match(entry):
            name, _, value = entry.partition("=")
            facts.add("environment", name, value or "(empty)")

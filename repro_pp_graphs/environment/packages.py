"""Versions and origins of the packages that matter, from metadata and files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path

# fmt: off
NAMES = (
    "sglang", "sgl-kernel", "sglang-kernel", "sglang-router", "torch", "triton",
    "flashinfer-python", "flashinfer-cubin", "flashinfer-jit-cache", "transformers",
    "tokenizers", "xgrammar", "nvidia-nccl-cu13", "nvidia-nccl-cu12", "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-nvshmem-cu13",
    "nvidia-nvshmem-cu12", "nvidia-cuda-cupti", "nvidia-cuda-cupti-cu12", "cuda-python",
    "deep-ep", "deep-gemm", "flash-attn", "torchao", "torch-memory-saver",
    "mooncake-transfer-engine", "numpy", "pyzmq", "msgspec", "orjson", "uvloop", "fastapi",
    "uvicorn", "requests", "vllm", "aiohttp", "anthropic", "huggingface-hub", "interegular",
    "litellm", "modelscope", "openai", "outlines", "packaging", "psutil", "pydantic",
    "python-multipart", "tiktoken", "torchcodec",
)
# fmt: on
_CONDA = re.compile(r"(pytorch|libtorch|nccl|cuda-version|cuda-cudart|cuda-nvcc|sglang|triton)$")


def commit(checkout: Path) -> str:
    """The commit a checkout is at, read from its .git without git; OSError if there is none."""
    git = checkout / ".git"
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    ref = head[len("ref: ") :]
    if (git / ref).exists():
        return f"{(git / ref).read_text().strip()} ({ref})"
    packed = re.search(rf"^(\w+) {re.escape(ref)}$", (git / "packed-refs").read_text(), re.M)
    return f"{packed.group(1) if packed else 'no commit'} ({ref})"


def state(checkout: Path) -> str:
    """Where a checkout is: "commit (ref), v1-2-gabc-dirty", the last part as git describes it."""
    parts = [commit(checkout)]
    describe = ["git", "-C", str(checkout), "describe", "--always", "--tags", "--dirty"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, timeout=2, check=True)
        parts.append(done.stdout.strip())
    except FileNotFoundError:
        parts.append("git: not found, so dirty or not is unknown")
    except subprocess.SubprocessError as error:
        parts.append(f"dirty or not is unknown ({type(error).__name__})")
    return ", ".join(parts)


def origin(distribution: metadata.Distribution) -> str:
    """Where a package that is no plain wheel came from (PEP 610), or an empty string."""
    direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    if "vcs_info" in direct:
        return f"from {direct['url']} at {direct['vcs_info'].get('commit_id')}"
    if not direct.get("dir_info", {}).get("editable"):
        return ""
    folder = Path(direct["url"][len("file://") :])
    for checkout in (folder, *folder.parents[:2]):
        if (checkout / ".git").is_dir():
            return f"editable in {folder} at {state(checkout)}"
    return f"editable in {folder}"


@lru_cache(1)
def installed() -> tuple[tuple[str, str], ...]:
    """(name, "version" or "version, origin") of each package of NAMES that is installed."""
    return tuple(_installed())


def _installed() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        try:
            where = origin(distribution)
        except (OSError, ValueError, KeyError) as error:
            where = f"origin not readable ({error})"
        yield name, ", ".join(filter(None, (distribution.version, where)))
    for path in sorted(Path(sys.prefix, "conda-meta").glob("*-*-*.json")):
        name, version, _ = path.stem.rsplit("-", 2)
        if _CONDA.match(name):
            yield f"conda {name}", version


def module_file(name: str) -> Path | None:
    """The file that `import name` would read, without importing it."""
    spec = util.find_spec(name)
    return Path(spec.origin) if spec and spec.origin else None


def torch_build() -> dict[str, str]:
    """torch/version.py as a dict: version, cuda, hip, git_version, debug; empty without torch."""
    found = module_file("torch")
    if found is None or not found.with_name("version.py").is_file():
        return {}
    text = found.with_name("version.py").read_text()
    pairs = re.findall(r"^(\w+)(?:: [^=\n]+)? = ('[^'\n]*'|True|False|None)", text, re.M)
    return {name.strip("_"): value.strip("'") for name, value in pairs}


def torch_nccl_pin() -> str:
    """The NCCL version in torch's own requirements, or an empty string."""
    try:
        needs = metadata.requires("torch") or []
    except metadata.PackageNotFoundError:
        return ""
    pins = (re.match(r"nvidia-nccl\S*?\s*\(?==([\d.]+)", need) for need in needs)
    return next((pin.group(1) for pin in pins if pin), "")

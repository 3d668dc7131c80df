"""What the interpreter that runs this can tell about itself: packages, torch, CUDA, NCCL."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from repro_pp_graphs.environment import libraries, packages, running_servers
from repro_pp_graphs.environment.fact_lines import LOOK_AT, Fact, print_facts


def numbers(version: str) -> tuple[int, ...]:
    """(2, 27, 5) of "2.27.5, from somewhere"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def interpreter() -> Iterator[Fact]:
    """Which Python this is."""
    kind = " (virtual environment)" if sys.prefix != sys.base_prefix else ""
    yield Fact("software", "Python", sys.version)
    yield Fact("software", "Python executable", sys.executable + kind)


def software() -> Iterator[Fact]:
    """Packages, torch's build, the driver's CUDA; sglang and torch for the summary."""
    found = dict(packages.installed())
    kernels = [f"{n} {found[n]}" for n in ("sglang-kernel", "sgl-kernel") if n in found]
    yield Fact("summary", "sglang", ", ".join([found.get("sglang", "not installed"), *kernels]))
    for name, version in found.items():
        yield Fact("software", name, version)
    for module in ("sglang", "torch"):
        place = packages.module_file(module) or "no such module"
        yield Fact("software", f"{module} found", str(place))
    build = packages.torch_build()
    runtimes = {n: build[n] for n in ("cuda", "hip") if build.get(n, "None") != "None"}
    torch = [build.get("version", "not installed"), *map(" ".join, runtimes.items())]
    yield Fact("summary", "torch", ", ".join(torch))
    yield Fact("software", "torch build", ", ".join(map(" ".join, build.items())) or "no torch")
    driver = libraries.driver_cuda()
    yield Fact("software", "CUDA the driver takes", driver)
    built_for = runtimes.get("cuda", "")
    if numbers(driver) and numbers(driver)[:1] < numbers(built_for)[:1]:
        text = f"torch is built for CUDA {built_for}, the driver takes {driver}"
        yield Fact("summary", LOOK_AT, text)


def nccl() -> Iterator[Fact]:
    """Each libnccl with its version; what disagrees with pip's package or torch's pin."""
    pip = next((v for n, v in packages.installed() if n.startswith("nvidia-nccl")), "")
    pin = packages.torch_nccl_pin()
    if pin:
        yield Fact("software", "NCCL torch asks for", pin)
    if pip and pin and numbers(pip) != numbers(pin):
        yield Fact("summary", LOOK_AT, f"NCCL: torch asks for {pin}, pip has {pip}")
    for what, text in libraries.nccl_settings():
        yield Fact("network", f"NCCL {what}", text)
    torch = packages.module_file("torch")
    sites = [str(torch.parents[1]), *sys.path] if torch else sys.path
    seen = list(libraries.nccl([pid for pid, _ in running_servers.processes()], sites))
    for library in seen:
        text = f"{library.version} {library.path}" if library.version else library.error
        yield Fact("software", f"NCCL {library.where}", text)
    loadable = [library for library in seen if library.version]
    for library in loadable:
        if pip and numbers(library.version) != numbers(pip):
            text = f"NCCL: {library.version} {library.where}, pip's metadata say {pip}"
            yield Fact("summary", LOOK_AT, text)
    best = f"{loadable[0].version} ({loadable[0].where})" if loadable else "not found"
    yield Fact("summary", "NCCL", best)


def main() -> None:
    """Print its facts a line each (fact_lines.py)."""
    print_facts(interpreter, software, nccl)

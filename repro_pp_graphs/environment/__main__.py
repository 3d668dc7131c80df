"""python -m repro_pp_graphs.environment PORT: facts, one a line: section TAB key TAB value."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from repro_pp_graphs.environment import libraries, packages, server


class Fact(NamedTuple):
    """One line of the output; the key "look at" may come several times."""

    section: str
    key: str
    value: str


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
        yield Fact("summary", "look at", text)


def nccl() -> Iterator[Fact]:
    """Each libnccl with its version; what disagrees with pip's package or torch's pin."""
    pip = next((v for n, v in packages.installed() if n.startswith("nvidia-nccl")), "")
    pin = packages.torch_nccl_pin()
    if pin:
        yield Fact("software", "NCCL torch asks for", pin)
    if pip and pin and numbers(pip) != numbers(pin):
        yield Fact("summary", "look at", f"NCCL: torch asks for {pin}, pip has {pip}")
    for what, text in libraries.nccl_settings():
        yield Fact("network", f"NCCL {what}", text)
    torch = packages.module_file("torch")
    sites = [str(torch.parents[1]), *sys.path] if torch else sys.path
    seen = list(libraries.nccl([pid for pid, _ in server.processes()], sites))
    for library in seen:
        text = f"{library.version} {library.path}" if library.version else library.error
        yield Fact("software", f"NCCL {library.where}", text)
    loadable = [library for library in seen if library.version]
    for library in loadable:
        if pip and numbers(library.version) != numbers(pip):
            text = f"NCCL: {library.version} {library.where}, pip's metadata say {pip}"
            yield Fact("summary", "look at", text)
    best = f"{loadable[0].version} ({loadable[0].where})" if loadable else "not found"
    yield Fact("summary", "NCCL", best)


def servers(port: int) -> Iterator[Fact]:
    """The sglang processes here, and the server that answers on the port."""
    for pid, command in server.processes():
        yield Fact("server", f"process {pid}", command)
    said, state = server.ask(port)
    yield Fact("server", f"port {port}", said)
    telling = ("version", "model_path", "tp_size", "pp_size")
    short = [f"{key} {state[key]}" for key in telling if key in state]
    yield Fact("summary", "server", f"port {port}: {', '.join(short)}" if short else said)
    for key, text in state.items():
        yield Fact("server", key, text)


def main(port: int) -> None:
    """Print each fact as it comes: a probe that dies, foreign libraries last, takes none along."""
    for probe in (interpreter, software, partial(servers, port), nccl):
        last = "the start"
        try:
            for fact in probe():
                last = fact.key
                print(*(" ".join(part.split()) for part in fact), sep="\t", flush=True)
        except Exception as error:
            print("software", f"failed after {last}", repr(error), sep="\t", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

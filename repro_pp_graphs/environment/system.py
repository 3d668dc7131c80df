"""Facts on the machine without its GPUs: system, container, limits, clocks, network."""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from repro_pp_graphs.environment.facts import Facts, count
from repro_pp_graphs.environment.programs import Program, Programs, slurp

_GIB = 2**30
_NO_LIMIT = 2**62  # bytes: no machine has as many
_FILES = {
    "load average": "/proc/loadavg",
    "NUMA balancing": "/proc/sys/kernel/numa_balancing",
    "transparent hugepages": "/sys/kernel/mm/transparent_hugepage/enabled",
    "clock source": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
}
_LIMITS = (
    "cpu.max", "memory.max", "cpuset.cpus.effective", "cpu/cpu.cfs_quota_us",
    "memory/memory.limit_in_bytes",
)  # fmt: skip
_DIRECT_MODULES = ("nvidia_peermem", "nvidia_fs", "gdrdrv")


def first(pattern: str, text: str) -> str:
    """Group 1 of the first match in any line; empty without one."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def now() -> str:
    """The time, as "2026-01-31 23:59:59 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


class Clocks(NamedTuple):
    """The programs that know how far off this clock is, at work."""

    chrony: Program
    timedatectl: Program

    @classmethod
    def start(cls, programs: Programs) -> Clocks:
        """Both at once: either may be slow."""
        show = ("timedatectl", "show", "-p", "NTPSynchronized")
        return cls(programs.start(1, "chronyc", "-n", "tracking"), programs.start(1, *show))

    def offset(self) -> str:
        """The clock's offset, or whether it is synchronised, or that neither is known."""
        offset = first("^System time *: (.*)", self.chrony.answer().text)
        if offset:
            return offset
        answer = self.timedatectl.answer()
        return f"offset unknown, {answer.text}" if answer.ok else "chronyc, timedatectl: no answer"


def collect(facts: Facts, clocks: Clocks) -> None:
    """The section "system"."""
    system = os.uname()
    name = first('^PRETTY_NAME="?([^"\n]*)', slurp("/etc/os-release"))
    facts.add("system", "OS", name or "unknown")
    facts.add("system", "kernel", f"{system.release} {system.machine}")
    for key, text in (*_container(), *_hardware(), *_ulimits(facts), *_cgroup()):
        facts.add("system", key, text)
    for key, path in _FILES.items():
        facts.add("system", key, slurp(path) or "not readable")
    facts.add("system", "clock offset", clocks.offset())
    governors = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    facts.add("system", "governor", count(filter(None, map(slurp, governors))) or "not readable")


def _container() -> Iterator[tuple[str, str]]:
    podman = Path("/run/.containerenv")
    signs = {
        "docker": Path("/.dockerenv").exists(),
        "podman": podman.exists(),
        "kubernetes": "KUBERNETES_SERVICE_HOST" in os.environ,
    }
    found = " ".join(name for name, seen in signs.items() if seen)
    yield "container", found or os.environ.get("container") or "no sign of one"  # noqa: SIM112
    if found:
        image = first("(image=.*imageid=[^ ]*)", slurp(podman).replace("\n", " "))
        yield "image", image or "digest not visible from inside"
    parts = [slurp(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    named = " ".join(filter(None, parts))
    if " hypervisor" in slurp("/proc/cpuinfo"):
        named = f"{named} (virtual machine)" if named else "a virtual machine that names no maker"
    yield "machine", named or "unknown"


def _hardware() -> Iterator[tuple[str, str]]:
    model = first(r"^model name\s*: (.*)", slurp("/proc/cpuinfo")) or "model unknown"
    usable = len(os.sched_getaffinity(0))
    yield "CPU", f"{model}; {os.sysconf('SC_NPROCESSORS_CONF')} CPUs, {usable} usable here"
    nodes = _numbered(Path("/sys/devices/system/node").glob("node[0-9]*"))
    cpus = [f"{node.name}: {slurp(node / 'cpulist')}" for node in nodes]
    yield "NUMA", "; ".join(cpus) or "no nodes shown"
    memory = slurp("/proc/meminfo")
    sizes = [first(rf"^{name}: +(\d+) kB", memory) for name in ("MemTotal", "MemAvailable")]
    total, free = (f"{int(size) * 1024 // _GIB} GiB" if size else "" for size in sizes)
    yield "memory", f"{total or 'unknown'}, {free or '?'} available"
    yield "/dev/shm", _shared_memory()


def _numbered(paths: Iterable[Path]) -> list[Path]:
    """node2 before node10."""
    return sorted(paths, key=lambda path: int(re.sub(r"\D", "", path.name)))


def _shared_memory() -> str:
    try:
        disk = os.statvfs("/dev/shm")
    except OSError:
        return "not mounted, nothing free"
    total, free = (blocks * disk.f_frsize / _GIB for blocks in (disk.f_blocks, disk.f_bavail))
    return f"{total:.2f} GiB, {free:.2f} GiB free"


def _ulimits(facts: Facts) -> Iterator[tuple[str, str]]:
    kib = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    soft, hard = (_limit(limit, 1024) for limit in kib)
    yield "ulimit memlock", f"soft {soft}, hard {hard} (KiB)"
    if soft != "unlimited" and Path("/sys/class/infiniband").is_dir():
        facts.note(
            "memlock is limited and there are RDMA devices: NCCL may fail to register memory"
        )
    soft, hard = (_limit(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    yield "ulimit nofile", f"soft {soft}, hard {hard}"


def _limit(limit: int, unit: int = 1) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit // unit)


def _bound(text: str) -> str:
    """A limit of a cgroup; of version 1 the largest number of pages, and -1, are no limit."""
    return "none" if text == "-1" or (text.isdigit() and int(text) >= _NO_LIMIT) else text


def _cgroup() -> Iterator[tuple[str, str]]:
    base = "/sys/fs/cgroup"
    own = first("^0::(.*)", slurp("/proc/self/cgroup"))
    if own and Path(f"{base}{own}/cpu.max").exists():
        base += own
    limits = {name.split("/")[-1]: slurp(f"{base}/{name}") for name in _LIMITS}
    shown = [f"{name} {_bound(text)}" for name, text in limits.items() if text]
    yield "cgroup limits", ", ".join(shown) or "none readable"
    stat = slurp(f"{base}/cpu.stat") or slurp(f"{base}/cpu/cpu.stat")
    yield "cgroup throttled periods", first(r"^nr_throttled (\d+)", stat) or "not readable"


def collect_network(facts: Facts) -> None:
    """RDMA ports, interfaces, and the modules for GPUDirect, of the section "network"."""
    ports = sorted(Path("/sys/class/infiniband").glob("*/ports/*"))
    for port in ports:
        words = [slurp(port / name) for name in ("link_layer", "state", "phys_state", "rate")]
        text = ", ".join(word.split(": ")[-1] for word in words if word)
        facts.add("network", f"RDMA {port.parts[-3]}:{port.name}", text)
    if not ports:
        facts.add("network", "RDMA", "no InfiniBand or RoCE device")
    for path in sorted(Path("/sys/class/net").glob("*")):
        if path.is_dir() and path.name != "lo" and not path.name.startswith("veth"):
            facts.add("network", f"interface {path.name}", _interface(path))
    loaded = [name for name in _DIRECT_MODULES if Path("/sys/module", name).is_dir()]
    facts.add("network", "GPUDirect modules", " ".join(loaded) or "none loaded")


def _interface(path: Path) -> str:
    speed, mtu = slurp(path / "speed"), slurp(path / "mtu")
    parts = [slurp(path / "operstate")]
    if speed.isdigit() and int(speed) > 0:
        parts.append(f"{speed} Mb/s")
    if mtu:
        parts.append(f"MTU {mtu}")
    return ", ".join(filter(None, parts))

"""Which cores each rank may run on: disjoint sets, by the NUMA node of its GPU, or as listed.

Fair to every case: the sets depend on ranks, GPUs and cores alone. The server's other processes and
the load client get the cores that no rank has, where some are left.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

OFF, AUTO = "off", "auto"
MOST_PHYSICAL = 8  # cores a rank: its loop is one thread, beside some of NCCL and gloo
_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*(:\d+(-\d+)?(,\d+(-\d+)?)*)*")
_CPUS, _PCI = Path("/sys/devices/system/cpu"), Path("/sys/bus/pci/devices")


class PinError(ValueError):
    """Cores that cannot be given; the message says what to do."""


def parse(text: str) -> list[set[int]]:
    """`0-3:4-7,12` -> a set of cores a rank. Raises PinError."""
    if not _LIST.fullmatch(text):
        raise PinError("auto, off, or the cores of each rank as 0-3:4-7")
    sets = [cores_of(part) for part in text.split(":")]
    if not all(sets) or len(set().union(*sets)) < sum(map(len, sets)):
        raise PinError("every rank needs cores of its own: no core twice")
    return sets


def cores_of(text: str) -> set[int]:
    """`0-3,8` -> the cores."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def spelled(cores: Iterable[int]) -> str:
    """Cores as taskset has them: 0-3,8."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def listed(text: str, ranks: int) -> list[set[int]]:
    """The cores of each rank as asked for. Raises PinError where they do not suit this machine."""
    sets, usable = parse(text), os.sched_getaffinity(0)
    if len(sets) != ranks:
        raise PinError(f"{len(sets)} sets of cores for {ranks} ranks: one a rank, as 0-3:4-7")
    if absent := sorted(set().union(*sets) - usable):
        known = spelled(usable)
        raise PinError(f"core {absent[0]} is not usable here: there are {known}")
    return sets


def automatic(bus_ids: Sequence[str], ranks: int) -> list[set[int]]:
    """As many cores for each rank, near its GPU. `bus_ids`: of GPU 0, 1, ..., as nvidia-smi has
    them; rank n is on GPU n modulo their number. Raises PinError where cores are too few."""
    usable = os.sched_getaffinity(0)
    near = [_near(bus_ids[n % len(bus_ids)]) & usable if bus_ids else set() for n in range(ranks)]
    return share([each or usable for each in near], [_siblings(core) for core in sorted(usable)])


def share(near: Sequence[set[int]], physical: Sequence[set[int]]) -> list[set[int]]:
    """Deal out whole physical cores: to each rank equally many of those near it, as many again left
    for everything else. `near`: cores by rank; `physical`: the threads of each core, repeats
    allowed. Raises PinError."""
    units = sorted({frozenset(each) for each in physical}, key=min)
    found: list[set[int]] = [set() for _ in near]
    sizes = []
    for cores in near:
        sharing = sum(each == cores for each in near)
        sizes.append(sum(unit <= cores for unit in units) // (sharing + 1))
    size = min([MOST_PHYSICAL, *sizes])
    if not size:
        raise PinError(f"too few cores for {len(near)} ranks and the rest: leave --pin-cpus out")
    taken: set[int] = set()
    for rank, cores in enumerate(near):
        free = [unit for unit in units if unit <= cores and not unit & taken][:size]
        if len(free) < size:
            raise PinError("the GPUs share their cores in part: name them, --pin-cpus 0-3:4-7")
        found[rank] = set().union(*free)
        taken |= found[rank]
    return found


def apply(sets: dict[int, set[int]], others: Sequence[int]) -> list[str]:
    """Pin each process in `sets` (by pid) to its cores with all its threads, and `others` to those
    that are left; what failed, in sentences."""
    failed = [text for pid, cores in sets.items() if (text := _pin(pid, cores))]
    rest = os.sched_getaffinity(0) - set().union(*sets.values())
    if rest:
        failed += [text for pid in others if (text := _pin(pid, rest))]
    return failed


def _pin(pid: int, cores: set[int]) -> str:
    """Why a process could not be pinned; empty where it was, or has ended."""
    for task in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue
        except OSError as error:
            return f"pid {pid} could not be pinned to {spelled(cores)}: {error.strerror}"
    return ""


def _near(bus_id: str) -> set[int]:
    """The cores near a GPU, by its PCI address; empty where that is not known."""
    # nvidia-smi says 00000000:04:00.0, the kernel 0000:04:00.0
    path = _PCI / bus_id[-12:].lower() / "local_cpulist"
    with contextlib.suppress(OSError, ValueError):
        return cores_of(path.read_text(encoding="ascii"))
    return set()


def _siblings(core: int) -> set[int]:
    """The hardware threads of a core, itself among them."""
    path = _CPUS / f"cpu{core}" / "topology" / "thread_siblings_list"
    with contextlib.suppress(OSError, ValueError):
        return cores_of(path.read_text(encoding="ascii"))
    return {core}

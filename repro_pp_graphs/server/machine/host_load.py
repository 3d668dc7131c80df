"""What a machine's CPUs do besides a launch, and how long its ranks wait for one; from /proc.

Launches without graphs are bound by the host: a neighbour on the rank's core, a hypervisor that
takes time away or a clock that is held back can make one 40 % slower as a whole. Counters are read
before and after a pass, nothing in between: reading disturbs no pass. What a kernel does not say is
left out; nothing here raises.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import timeit
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from repro_pp_graphs.launch_record import HostWindow, RankLoad
from repro_pp_graphs.server.machine import process
from repro_pp_graphs.server.machine.pinning import spelled

LOOPS = 7
_LOOP = "for n in range(100_000): n * n"
_TICKS_S = os.sysconf("SC_CLK_TCK")
_TITLE = re.compile(r"^sglang::scheduler((?:_[A-Z]+\d+)*)")
# fields of /proc/PID/stat after the command's name
_USER, _SYSTEM, _CORE = 11, 12, 36
# of the first line of /proc/stat: user nice system idle iowait irq softirq steal
_BUSY, _STEAL = (0, 1, 2, 5, 6), 7


@dataclass
class _Thread:
    """Counters of a rank's main thread."""

    ran_ns: int
    waited_ns: int
    voluntary: int
    involuntary: int
    core: int
    cores: str


@dataclass
class Reading:
    """All counters at one moment."""

    at_s: float
    busy_s: float  # of all cores, since boot
    ours_s: float  # of the launch's processes
    steal_s: float | None = None
    pressure_s: float | None = None
    runnable: int | None = None
    load1: float | None = None
    clock_mhz: float | None = None
    ranks: dict[str, _Thread] = field(default_factory=dict)


def loop_ms() -> float:
    """The fastest of LOOPS runs of a fixed loop in this Python, ms: the speed of one core, which a
    virtual machine's clock does not tell."""
    return round(min(timeit.repeat(_LOOP, number=1, repeat=LOOPS)) * 1e3, 3)


def ranks_of(pids: Iterable[int]) -> dict[str, int]:
    """The processes of a server's ranks, by their names: PP0, PP1 TP0."""
    found = {}
    for pid in sorted(pids):
        if title := _TITLE.match(process.title(pid)):
            found[title[1].strip("_").replace("_", " ") or "PP0"] = pid
    return found


def read(server: int) -> Reading:
    """The counters now; `server`: the pid that leads its processes, 0 for none. This process, which
    sends the load, counts as the launch's too."""
    family = process.family(server) if server else set()
    family.add(os.getpid())
    ranks = {name: found for name, pid in ranks_of(family).items() if (found := _thread(pid))}
    busy, steal = _cpu_times()
    load1, runnable = _load()
    return Reading(
        at_s=time.monotonic(),
        busy_s=busy,
        ours_s=sum(map(_cpu_s, family)),
        steal_s=steal,
        pressure_s=_pressure(),
        runnable=runnable,
        load1=load1,
        clock_mhz=_clock([each.core for each in ranks.values()]),
        ranks=ranks,
    )


def window(first: Reading, last: Reading) -> HostWindow:
    """What the counters say of the time between two readings."""
    seconds = max(last.at_s - first.at_s, 1e-3)
    others = (last.busy_s - first.busy_s) - (last.ours_s - first.ours_s)
    cores = len(os.sched_getaffinity(0))

    def share(one: float | None, other: float | None, of: float) -> float | None:
        return None if one is None or other is None else round((other - one) / of, 4)

    return HostWindow(
        seconds=round(seconds, 3),
        cores=cores,
        other_cores=round(max(0.0, others / seconds), 3),
        steal_share=share(first.steal_s, last.steal_s, seconds * cores),
        pressure_share=share(first.pressure_s, last.pressure_s, seconds),
        runnable=last.runnable,
        load1=last.load1,
        clock_mhz=last.clock_mhz,
    )


def ranks_between(first: Reading, last: Reading) -> dict[str, RankLoad]:
    """What each rank's main thread did between two readings."""
    all_ns = max(last.at_s - first.at_s, 1e-3) * 1e9
    found = {}
    for name, then in first.ranks.items():
        if (now := last.ranks.get(name)) is not None:
            found[name] = RankLoad(
                ran_share=round((now.ran_ns - then.ran_ns) / all_ns, 4),
                waited_share=round((now.waited_ns - then.waited_ns) / all_ns, 4),
                voluntary=now.voluntary - then.voluntary,
                involuntary=now.involuntary - then.involuntary,
                core=now.core,
                cores=now.cores,
            )
    return found


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _cpu_times() -> tuple[float, float | None]:
    """Seconds since boot that all cores were busy, and that a hypervisor took."""
    words = _text("/proc/stat").partition("\n")[0].split()[1:]
    numbers = [int(word) / _TICKS_S for word in words if word.isdigit()]
    if len(numbers) <= max(_BUSY):
        return 0.0, None
    steal = numbers[_STEAL] if len(numbers) > _STEAL else None
    return sum(numbers[at] for at in _BUSY), steal


def _cpu_s(pid: int) -> float:
    fields = process.stat(pid)
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_S if fields else 0.0


def _pressure() -> float | None:
    found = re.search(r"^some .*total=(\d+)", _text("/proc/pressure/cpu"), re.MULTILINE)
    return int(found[1]) / 1e6 if found else None


def _load() -> tuple[float | None, int | None]:
    """The load average of a minute, and how many threads are ready or running."""
    found = re.match(r"([\d.]+) \S+ \S+ (\d+)/", _text("/proc/loadavg"))
    return (float(found[1]), int(found[2])) if found else (None, None)


def _clock(cores: list[int]) -> float | None:
    """The median clock in MHz of some cores; of all where none is named."""
    base = "/sys/devices/system/cpu"
    names = cores or sorted(os.sched_getaffinity(0))
    read = [_text(f"{base}/cpu{core}/cpufreq/scaling_cur_freq").strip() for core in names]
    found = [int(text) / 1000 for text in read if text.isdigit()]
    if not found:  # a virtual machine has no cpufreq
        by_core = re.findall(r"^cpu MHz\s*: ([\d.]+)", _text("/proc/cpuinfo"), re.MULTILINE)
        found = [float(by_core[core]) for core in names if core < len(by_core)]
    return round(median(found), 1) if found else None


def _thread(pid: int) -> _Thread | None:
    """The counters of a process's main thread; None where it is gone."""
    base = f"/proc/{pid}/task/{pid}"
    times = _text(f"{base}/schedstat").split()
    switches = dict(re.findall(r"^(\w+)_ctxt_switches:\s+(\d+)", _text(f"{base}/status"), re.M))
    fields = process.stat(pid)
    if len(times) < 2 or len(fields) <= _CORE:
        return None
    cores = ""
    with contextlib.suppress(OSError):
        cores = spelled(os.sched_getaffinity(pid))
    return _Thread(
        ran_ns=int(times[0]),
        waited_ns=int(times[1]),
        voluntary=int(switches.get("voluntary", 0)),
        involuntary=int(switches.get("nonvoluntary", 0)),
        core=int(fields[_CORE]),
        cores=cores,
    )

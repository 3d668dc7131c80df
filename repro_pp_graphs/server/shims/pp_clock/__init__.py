"""Time what a rank's host does in a turn of the PP loop, and number its messages while profiled.

Every row (repro_pp_graphs/pp_clock/rows.py) is one call: its begin and end on CLOCK_MONOTONIC, its
turn, its kind. A fault of the clock stops the clock, never the server; the header of the rank's
file says so.

Environment: REPRO_PP_CLOCK, where the files go (`<that>_PP0_TP0.rows`); REPRO_PP_CLOCK_ROWS, rows a
rank; REPRO_PP_CLOCK_NUMBERS=0, no profile is to be taken: messages are not numbered, and nothing of
theirs is wrapped; REPRO_PP_CLOCK_ALTERNATE=N, the clock is on for N turns, off for 2 N, on for 2 N,
and so on: what it costs. While it is off all but a turn's own row is as without the clock; messages
are counted in such a server, but their numbers are not shown.

A rank starts its clock here. clock.py has the turn and its rows, wrappers.py what takes the place
of sglang's functions, owners.py the objects in which it does, message_numbers.py the messages'
numbers. Where the clock takes hold of a release is in repro_pp_graphs/pp_clock/hooks.py, the GPU's
events are in device.py there.
"""

from __future__ import annotations

import logging
import os
import sys
from types import ModuleType
from typing import Any

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.device import DeviceClock
from repro_pp_graphs.pp_clock.hooks import REFUSED
from repro_pp_graphs.pp_clock.rows import (
    LOG_NOT_STARTED,
    NOT_STARTED,
    NUMBERS_ENV,
    PREFIX_ENV,
    RowFile,
)
from repro_pp_graphs.server.patching.after_import import after_import
from repro_pp_graphs.server.shims.pp_clock.clock import Clock
from repro_pp_graphs.server.shims.pp_clock.message_numbers import number_messages
from repro_pp_graphs.server.shims.pp_clock.owners import wrap

SCHEDULER = "sglang.srt.managers.scheduler"
ROWS_ENV = "REPRO_PP_CLOCK_ROWS"
ALTERNATE_ENV = "REPRO_PP_CLOCK_ALTERNATE"
ACTIVE = "repro shim pp_clock is active"  # a rank's line in the server's log

_log = logging.getLogger(__name__)


def start(scheduler: Any, prefix: str) -> Clock:  # noqa: ANN401
    """Begin a rank's rows and wrap what they time. Raises OSError without room for them, and what a
    release raises that is unlike those known; the clock is stopped then."""
    import torch  # noqa: PLC0415

    group = scheduler.pp_group
    pp_rank, pp_size = group.rank_in_group, group.world_size
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else pp_rank
    tp_rank = rank % max(1, torch.distributed.get_world_size() // pp_size)
    path = rows.path_of(prefix, pp_rank, tp_rank)
    wanted = int(os.environ.get(ROWS_ENV) or rows.CAPACITY)
    file = RowFile(path, rows.capacity_for(path.parent, wanted))
    alternate = int(os.environ.get(ALTERNATE_ENV) or 0)
    profiled = getattr(torch.autograd, "_profiler_enabled", None)
    clock = Clock(file, alternate, profiled or (lambda: False))
    version = str(getattr(sys.modules.get("sglang"), "__version__", ""))
    file.describe(
        pid=os.getpid(),
        pp_rank=pp_rank,
        pp_size=pp_size,
        tp_rank=tp_rank,
        loop_size=pp_size + _depth(scheduler),
        sglang_version=version,
        alternate=alternate,
        **rows.host_clock(),
    )
    try:
        lacks = _take_hold(scheduler, clock, version, torch)
    except Exception as error:
        clock.stop(f"{NOT_STARTED}: {type(error).__name__}: {error}")
        raise
    if alternate:
        lacks["messages"] = "not numbered: the clock alternates"
    elif profiled is None:
        lacks["messages"] = "not in this release: torch does not tell whether a profile runs"
    file.describe(lacks=lacks)
    _log.info(
        "%s: PP rank %d of %d, rows in %s; lacks %s",
        ACTIVE,
        pp_rank,
        pp_size,
        path,
        "; ".join(f"{name} ({why})" for name, why in lacks.items()) or "nothing",
    )
    return clock


def _take_hold(scheduler: Any, clock: Clock, version: str, torch: Any) -> dict[str, str]:  # noqa: ANN401
    """Put everything in place that can be; what cannot, and why."""
    from repro_pp_graphs.server.release.installed import version_numbers  # noqa: PLC0415

    lacks = wrap(scheduler, clock, version_numbers(version) if version else ())
    if os.environ.get(NUMBERS_ENV) == "0":
        lacks["messages"] = "not numbered: no profile is to be taken"
    else:
        try:
            number_messages(scheduler, clock, torch)
        except Exception as error:
            lacks["messages"] = f"{REFUSED}: {type(error).__name__}: {error}"
    if why := _device_clock(clock, torch):
        lacks["own_batch"] = why
    return lacks


def _device_clock(clock: Clock, torch: Any) -> str:  # noqa: ANN401
    """Time the batches on the GPU too; why not, where that is not possible."""
    if not torch.cuda.is_available():
        return "no CUDA here: how long a batch runs is not known"
    try:
        clock.device = DeviceClock(torch.cuda, clock.own_batch, torch._C)
    except Exception as error:
        return f"no CUDA events: {type(error).__name__}: {error}"
    return ""


def _depth(scheduler: Any) -> int:  # noqa: ANN401
    """Batches in flight beyond one a rank (0.5.7 and newer)."""
    arguments = getattr(scheduler, "server_args", None)
    return int(getattr(arguments, "pp_async_batch_depth", 0) or 0)


def patch(module: ModuleType) -> None:
    """Start the clock of every scheduler of that module as its event_loop_pp begins."""
    scheduler = module.Scheduler
    loop = scheduler.event_loop_pp

    def event_loop_pp(self: Any) -> Any:  # noqa: ANN401
        try:
            start(self, os.environ[PREFIX_ENV])
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            _log.exception("%s (%s); the server goes on without it", LOG_NOT_STARTED, why)
        return loop(self)

    scheduler.event_loop_pp = event_loop_pp


def install() -> None:
    """Patch sglang's scheduler once it is imported, where it is known where the rows go."""
    if os.environ.get(PREFIX_ENV):
        after_import(SCHEDULER, patch)

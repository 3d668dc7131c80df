"""The objects of a scheduler whose functions the clock times, and their wrappers put in place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from repro_pp_graphs.pp_clock import hooks
from repro_pp_graphs.server.shims.pp_clock.clock import Call, Clock
from repro_pp_graphs.server.shims.pp_clock.wrappers import Wrappers

ALWAYS = ("turn", "launch")  # hooks that stay while the clock is off: what a turn was


def _owners(scheduler: Any) -> dict[str, Any]:  # noqa: ANN401
    """The live objects whose methods are wrapped, by the names that the hooks have for them."""
    worker = getattr(scheduler, "tp_worker", None)
    runner = getattr(worker, "model_runner", None)
    if runner is None:
        runner = getattr(getattr(worker, "worker", None), "model_runner", None)
    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("sglang.srt.managers.") and hasattr(module, "point_to_point_pyobj")
    ]
    return {
        "Scheduler": scheduler,
        "SchedulerRequestReceiver": getattr(scheduler, "request_receiver", None),
        "GroupCoordinator": getattr(scheduler, "pp_group", None),
        "ModelRunner": runner,
        "": users[0] if users else None,
        "users": users,
    }


def wrap(scheduler: Any, clock: Clock, version: tuple[int, ...]) -> dict[str, str]:  # noqa: ANN401
    """Put the clock's functions in place; the hooks that the release lacks, and why."""
    owners = _owners(scheduler)
    places = hooks.resolve(hooks.parameters(owners))
    wrappers = Wrappers(clock, scheduler)
    makers: dict[str, Callable[[Call], Call]] = {
        "turn": wrappers.turn,
        "launch": wrappers.launch,
        "own_batch": wrappers.forward,
        "send_tensors": wrappers.send_tensors,
        "recv_tensors": wrappers.recv_tensors,
        hooks.EXCHANGE: lambda call: wrappers.timed("exchange", call),
        "requests": wrappers.requests,
        "wait_sent": wrappers.wait_sent,
        "wait_results": wrappers.wait_results,
        "process": lambda call: wrappers.timed("process", call),
    }
    found, faults = {}, {}
    for name, place in places.items():
        if place is None or (places[hooks.EXCHANGE] and name in hooks.IN_EXCHANGE):
            continue
        try:
            for holder in owners["users"] if not place.owner else [owners[place.owner]]:
                wrapped = makers[name](getattr(holder, place.name))
                clock.take(holder, place.name, wrapped, name in ALWAYS)
            found[name] = str(place)
        except Exception as error:
            faults[name] = f"{hooks.REFUSED}: {error}"
    clock.file.describe(found=found)
    return hooks.lacking(places, version) | faults

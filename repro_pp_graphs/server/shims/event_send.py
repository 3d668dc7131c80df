"""The blocking sends of sync_send, with pinned memory and CUDA events where 0.5.2 waits for the
whole stream: a remedy for #10865.

The order of a turn and every message are sync_send's. What changes is the copies between host and
device: up, the host does not wait; down, it waits for one event. On a CPU there is nothing to
change, and the shim is sync_send.
"""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.patching.device_messages import EventCopies, PageableCopies
from repro_pp_graphs.server.shims import sync_send

ACTIVE = shim_names.active("event_send")


def copies(device: Any) -> PageableCopies:  # noqa: ANN401
    """How to copy to and from that device (a torch.device, or its name)."""
    kind = EventCopies if str(device).startswith("cuda") else PageableCopies
    return kind(device)


def wait_on_events(scheduler: Any) -> None:  # noqa: ANN401
    """Replace one scheduler's sends; call it before its event_loop_pp begins."""
    sync_send.send_synchronously(scheduler, copies, ACTIVE)


def install() -> None:
    """Patch sglang's PP loop once it is imported."""
    sync_send.install(wait_on_events)


def install_in_server() -> None:
    """In the process that spawns the ranks: end it where the shim does not suit the release."""
    sync_send.end_if_unfit("event_send")

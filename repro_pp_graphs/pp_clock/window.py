"""When a launch's client measured: the time by whose turns the facts are, on each rank's host."""

from __future__ import annotations

from typing import Any

Window = tuple[int, int]  # CLOCK_MONOTONIC, ns
ALWAYS: Window = (0, 1 << 62)


def window_of(client: dict[str, Any]) -> Window | None:
    """The measured window of a client's result: first request sent to last token received."""
    requests = [
        each
        for each in client.get("requests") or ()
        if each.get("events") and not each.get("beside")
    ]
    if not requests:
        return None
    return min(r["start_ns"] for r in requests), max(r["events"][-1][0] for r in requests)


def moved_to(window: Window | None, here: dict[str, Any], there: dict[str, Any]) -> Window | None:
    """A window by one host's CLOCK_MONOTONIC as another one's, by their Unix times; the same where
    it is one host, or nothing is known of the hosts."""
    boots = here.get("boot_id"), there.get("boot_id")
    known = all(boots) and "unix_ahead_ns" in here.keys() & there.keys()
    if window is None or not known or boots[0] == boots[1]:
        return window
    later_ns = int(here["unix_ahead_ns"]) - int(there["unix_ahead_ns"])
    return window[0] + later_ns, window[1] + later_ns

"""The disk room that is taken before it is needed: what the client's result of a load may take."""

from __future__ import annotations

from repro_pp_graphs.run_record import Load, Plan

LEAST_ROOM = 1 << 16
EVENT_BYTES = 64  # at most, of a token's arrival in client.json, with its share of the rest


def room_for(load: Plan | Load) -> int:
    """Bytes that the client's result of a load may take."""
    return max(load.batch * load.max_new_tokens * EVENT_BYTES, LEAST_ROOM)

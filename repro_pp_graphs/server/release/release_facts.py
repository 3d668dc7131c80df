"""What sglang's releases do, as looked up in their sources (wheels of 0.4.6 to 0.5.23)."""

from __future__ import annotations

from typing import Literal

Sends = Literal["blocking", "synchronous", "asynchronous", "unknown"]

# From which release on the PP loop sends so, the newest first. 0.4.10 to 0.5.2 copy the pickled
# metadata to the GPU and send it over the device group (`send_object`, `.cuda(`); 0.5.3 to
# 0.5.6.post2 send it over the CPU group; from 0.5.7 the loop sends with `async_send=True`.
PP_SENDS: tuple[tuple[tuple[int, ...], Sends], ...] = (
    ((0, 5, 7), "asynchronous"),
    ((0, 5, 3), "synchronous"),
    ((0, 4, 10), "blocking"),
)
NEWEST_LOOKED_UP = (0, 5, 23)  # what a newer one does is not known before it is installed
# 0.5.3.post2 is the first to write the PP rank into the names of traces: 0.5.3 itself does not.
PP_IN_TRACE_NAMES = (0, 5, 4)
PP_IN_TRACE_NAMES_POST = ((0, 5, 3), 2)

# What that means for where the host waits.
SENDS_MEAN: dict[str, str] = {
    "blocking": "the host waits for its decode graph in the send, as in #10865",
    "synchronous": "the host waits for its decode graph in the receive that follows",
    "asynchronous": "the host does not wait in the send (in #10865 it does)",
    "unknown": "not looked up for this release",
}


def pp_sends(numbers: tuple[int, ...]) -> Sends:
    """How a release's PP loop sends, by its version's numbers, (0, 5, 2); empty: unknown."""
    return next((how for since, how in PP_SENDS if numbers >= since), "unknown")


def may_lack_pp_rank(numbers: tuple[int, ...]) -> bool:
    """Whether a release may leave the PP rank out of its traces' names."""
    return bool(numbers) and numbers < PP_IN_TRACE_NAMES


# From which release on `get_pp_indices` gives each of the last PP ranks one layer more where the
# layers do not come out even; before, the last rank alone has all that is left over (read in 0.4.6
# to 0.5.23: 0.5.5.post3 is the last of these).
EVEN_LAYERS = (0, 5, 6)


def layers_by_rank(layers: int, pp_size: int, numbers: tuple[int, ...]) -> list[int]:
    """How a release splits a model's layers over PP ranks, by its version's numbers; empty: as the
    newest do."""
    each, left = divmod(layers, pp_size)
    if numbers and numbers < EVEN_LAYERS:
        return [*[each] * (pp_size - 1), each + left]
    return [each] * (pp_size - left) + [each + 1] * left


# what a running server calls --pp-max-micro-batch-size in its state and in /set_internal_state: as
# the argument, whose first name is the older one's from 0.5.3.post1 on (read in 0.4.10 to 0.5.23)
MICRO_BATCH = ("pp_max_micro_batch_size", "max_micro_batch_size")

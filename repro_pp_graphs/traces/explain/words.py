"""How times, shares and the parts of a turn are written."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from repro_pp_graphs.traces.analysis_record import (
    Analysis,
    Cause,
    DecodeStep,
    GpuFacts,
    Manner,
    RankClocks,
    RowName,
    Spread,
    Turn,
)

WIDTH = 80

# The rows of a turn, in the order in which they are shown: `python` is what no call covers, `host`
# stands for it and `launch` where the trace lacks what separates them.
IN_MESSAGES: tuple[RowName, ...] = (
    *("token_send", "token_recv", "hidden_send", "hidden_recv"),
    *("requests", "other_messages", "exchange"),
)
REST: tuple[RowName, ...] = ("launch", "python", "host")
ROWS: tuple[RowName, ...] = (*IN_MESSAGES, "results", *REST)

# A row of a turn: in the table, and after "its host is in"
ROW_TITLES: dict[RowName, str] = {
    "token_send": "send of token ids",
    "token_recv": "receive of token ids",
    "hidden_send": "send of hidden states",
    "hidden_recv": "receive of hidden states",
    "exchange": "sends and receives, a batch",
    "requests": "requests, both ways",
    "other_messages": "messages of unknown kind",
    "results": "waiting for results",
    "launch": "operators and launches",
    "python": "Python (in no call)",
    "host": "operators and Python",
}
ROW_PHRASES: dict[RowName, str] = {
    "token_send": "the send of token ids",
    "token_recv": "the receive of token ids",
    "hidden_send": "the send of hidden states",
    "hidden_recv": "the receive of hidden states",
    "exchange": "the batch of sends and receives",
    "requests": "the exchange of requests",
    "other_messages": "a message of unknown kind",
    "results": "the wait for results",
    "launch": "operators and launches",
    "python": "Python",
    "host": "operators and Python",
}
CAUSE_TITLES: dict[Cause, str] = {
    "own_graph": "for its own decode graph",
    "own_compute": "for its own kernels",
    "peer_late": "for a peer not there yet",
    "transfer": "for the transfer",
    "otherwise": "for something else",
}
SOMETHING_ELSE = (
    "Something else: a call or message that waits while the traces show nothing of this rank that "
    "would hold it: another process's turn on the GPU, the driver, a partner that is not in the "
    "traces"
)
RETURNING = (
    "Returning from GPU waits: from the end of the GPU's work to the return of the call that waits "
    "for it. "
)
ALONE = "Messages, one end unknown: their other end is not in the traces. "
SHARED = (
    "GPU with another rank: the rank's own work is launched and waits, while another's runs on a "
    "GPU that they share, or may. "
)
UNEXPLAINED = "Unexplained: what no dependency in the trace accounts for"
BLOCKING: frozenset[Manner] = frozenset({"on_device", "synchronous"})  # sends that hold the host
RECEIVES: tuple[RowName, ...] = ("token_recv", "hidden_recv")
# What a row of idle time is of: of a GPU, or of the kernels of a rank that shares one, or may.
GPU_IDLE, OWN_IDLE = "its GPU computes nothing", "none of its own kernels"
# A part of a time that is smaller than this share of it is not mentioned.
WORTH_SAYING = 0.1
# What is left of a time besides the parts that a sentence names is said from this share on.
LEFT_OVER = 0.01
# A mean this many times the median is not typical.
SKEWED = 1.4
# Within what messages bound the clocks of ranks on one host, and often do not of several.
ONE_HOST_US = 2000
MOST_NAMED = 4  # ranks


def time(value_us: float | None) -> str:
    """A time in the unit that reads best; `-` for none."""
    if value_us is None:
        return "-"
    if abs(value_us) >= 1e6:
        return f"{value_us / 1e6:.2f} s"
    if abs(value_us) >= 1e2:
        return f"{value_us / 1e3:.2f} ms"
    return f"{value_us:.1f} us" if value_us else "0 us"


def the_rest(left_us: float, whole_us: float, sign: str = "") -> list[str]:
    """What a time has besides the parts that a sentence names, as one more part; none where that
    is next to nothing. `sign`: `+` for a difference, in ms and always with its sign."""
    if abs(left_us) < LEFT_OVER * abs(whole_us):
        return []
    return [f"the rest {left_us / 1e3:+.2f} ms" if sign else f"the rest {time(left_us)}"]


def ms(value_us: float | None) -> str:
    """A time in ms without its unit, for columns that have it in their head; `-` for none."""
    return "-" if value_us is None else f"{value_us / 1e3:.2f}"


def column(value_us: float | None, width: int, sign: str = "") -> str:
    """A time in ms as a right-aligned column that always begins with a space.

    With as many of two decimals as there is room for; from where no whole number of ms fits, in
    seconds with their unit. `sign`: `+` to write it always.
    """
    if value_us is None:
        return f"{'-':>{width}}"
    value = value_us / 1e3
    texts = [f"{value:{sign}.{digits}f}" for digits in (2, 1, 0)]
    seconds = f"{value / 1e3:{sign}.0f}s"
    text = next((each for each in texts if len(each) < width), seconds)
    return f" {text}".rjust(width)


def mean_of(number: int, what: str, cell: Spread | Turn | DecodeStep) -> str:
    """How many a mean is of; with the median where a few long ones make up much of the mean."""
    text = f"mean of {number}{what}"
    few = cell.mean > SKEWED * cell.median
    return f"({text}; the median is {time(cell.median)})" if few else f"({text})"


def clock_doubt_us(clocks: Sequence[RankClocks], hosts: Sequence[str]) -> float:
    """How far apart the ranks' clocks may be, us; 0 where nothing shows that they have several.

    Where no file names its host (most do not), they are taken for one host's as long as messages
    bound them as closely as they do on one.
    """
    doubt = 0.0
    for row in clocks:
        low, high = row.low_us, row.high_us
        if low is None or high is None:
            doubt = float("inf") if len(hosts) > 1 else doubt
            continue
        most = max(abs(low), abs(high))
        if len(hosts) > 1 or not low <= 0 <= high or (not hosts and most > ONE_HOST_US):
            doubt = max(doubt, most)
    return doubt


def clocks_do(facts: Analysis, time_us: float) -> bool:
    """Whether the ranks' clocks are close enough to share out a time between them."""
    return clock_doubt_us(facts.clocks, facts.hosts) <= WORTH_SAYING * time_us


def share(value: float | None) -> str:
    """A share in percent; `-` for none."""
    return "-" if value is None else f"{100 * value:.1f}%"


def count(number: int, noun: str) -> str:
    """`1 batch`, `2 batches`, `3 ranks`."""
    plural = "es" if noun.endswith(("ch", "s")) else "s"
    return f"{number} {noun}" + plural * (number != 1)


def wrapped(text: str, indent: str = "") -> list[str]:
    """A paragraph as lines of 80 columns."""
    return wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def on_gpu(found: Analysis) -> bool:
    """Whether any rank's trace has GPU work, also where it is not known how much."""
    edges = any(edge.backend == "nccl" for edge in found.p2p)
    return edges or any(rank.basis == "gpu" or rank.graph_us for rank in found.ranks.values())


def gpu_of(found: Analysis, label: str) -> GpuFacts | None:
    """The GPU that a rank shares, or may share; None where it has its own."""
    return next((gpu for gpu in found.shared_gpus if label in gpu.ranks), None)


def own_idle_us(found: Analysis, label: str) -> float | None:
    """Of a rank's turn, while none of its own kernels runs, us; None where it has its own GPU: then
    that is how long the GPU is idle."""
    return found.turns[label].gpu_idle if gpu_of(found, label) else None


def gpu_idle_us(found: Analysis, label: str) -> float | None:
    """Of a rank's turn, while its GPU computes nothing, for whichever rank, us; None where that
    cannot be told."""
    turn = found.turns[label]
    return turn.gpu_idle_of_all if gpu_of(found, label) else turn.gpu_idle


def names_of(labels: Sequence[str]) -> str:
    """`PP0 and PP2`, `PP0, PP1, PP2 and PP3`, `PP0 to PP7 (8 ranks)`."""
    names = [f"PP{label}" for label in labels]
    if len(names) > MOST_NAMED:
        return f"{names[0]} to {names[-1]} ({len(names)} ranks)"
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def neighbour(label: str, row: RowName, pp_size: int) -> str:
    """The rank at the other end of a row's messages: the previous one of a receive."""
    pp, _, tp = label.partition(".")
    other = (int(pp) + (-1 if row in RECEIVES else 1)) % pp_size
    return f"PP{other}" + (f".{tp}" if tp else "")

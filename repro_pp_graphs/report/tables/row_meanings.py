"""What the rows of a run's table are, in a line each, for who has the table alone.

At length: docs/reading_results.md, "The table".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MEANINGS = {
    "TPOT": "(last token - first token) / (tokens - 1), as the client saw it",
    "TTFT": "first token - request sent",
    "ITL": "the gap between two arrivals, per token",
    "output tokens/s": "of all prompts together",
    "TTFT alone": "of one short prompt on a server that has nothing else to do: graphs cannot "
    "change it",
    "last rank's turn": "one round of the last PP rank's scheduler loop, timed in the server "
    "without a profiler",
    "longer when profiled": "how many times as long that turn is under torch's profiler",
    "of it waiting": "of the turn, the host's sends, receives and waits for them",
    "last rank's waits": "of its turn, the host's sends, receives and waits for them",
    "outside own batch": "of these, while none of the rank's own batch runs on its GPU",
    "token send measured": "how long the send of the token ids to rank 0 holds the last rank's "
    "host, timed without a profiler",
    "in prefill turns": "the same in turns of prefill",
    "batch measured": "the same where token ids go in one batch with what is received",
    "token send profiled": "the same send, as the traces show it",
    "until last byte": "from the send's begin until the host is back and the last byte is out",
    "under own graph": "of the send, while the rank's own decode graph runs",
    "no compute": "of the send, while the rank's GPU computes nothing",
    "waits outside own work": "the last rank's waits while none of its own batch runs on its GPU",
    "graphs on / off": "the ratio with sends as released, with blocking sends, and of the two",
    "NCCL between ranks": "how it was made to send",
    "micro-batch sizes": "sequences a decode step in the measured pass, by pp_clock (without "
    "it: in the traces)",
    "graph launches": "cudaGraphLaunch calls in the traces",
    "decode lines w/ graph": "decode lines of the server's log that say that a graph ran, of all",
    "failed requests": "of the measured load",
    "same answers as first": "of how many prompts the token ids are those of the first launch",
    "different answers": "how many different answers a launch gave to its prompts: few is usual "
    "with random weights, and no fault",
    "the host": "unlike: not as in the other launches; busy: other work took much of its cores",
    "session (--resume)": "the run was interrupted and gone on with",
}


def meaning(line: str) -> tuple[str, str] | None:
    """The name of a line's row and what it is; None of a line that begins no row."""
    text = line.strip()
    names = [name for name in MEANINGS if re.match(rf"{re.escape(name)}(?![^\s,])", text)]
    name = max(names, key=len, default="")  # TTFT alone, not TTFT
    return (name, MEANINGS[name]) if name else None


def of_lines(lines: Sequence[str]) -> list[str]:
    """`name: what it is`, a row each, once, in the order of the table's lines."""
    found = dict(filter(None, map(meaning, lines)))
    return [f"{name}: {what}" for name, what in found.items()]

"""The control: one short prompt alone for one token, whose TTFT decode CUDA graphs cannot change.

Where it differs between two runs, something else than the graphs did.
"""

from __future__ import annotations

from collections.abc import Iterator

from .load import streams_to_send
from .options import Options
from .prompts import Prompts
from .stream import Stream

WORDS = 8  # a prompt
FIRST = 10**12  # the number of the first prompt: no other prompt begins like these


def control_options(options: Options) -> Options:
    """A closed loop of one short synthetic prompt at a time, one new token each."""
    alone = {"batch": 1, "concurrency": 1, "request_rate": None, "duration_s": None}
    short = {"prompts": None, "input_len": WORDS, "max_new_tokens": 1}
    return Options(**(vars(options) | alone | short))


def control_streams(alone: Options, model: str) -> Iterator[Stream]:
    """The requests, `alone` from control_options: --control and, ahead, one that does not count."""
    return streams_to_send(alone, model, Prompts(alone), FIRST, alone.control + 1)

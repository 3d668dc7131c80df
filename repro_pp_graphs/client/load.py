"""The requests to send, in order: their bodies, and when each is due."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

from .options import Options
from .prompts import Prompts
from .stream import Stream, beside_options

BESIDE = 10**13  # between the numbers of the load's prompts and of those beside it
CONTROL_WORDS = 8  # a prompt
CONTROL_FIRST = 10**12  # the number of the first prompt: no other prompt begins like these


def request_body(options: Options, model: str, texts: list[str]) -> bytes:
    """The JSON of one request; several texts make one batched request."""
    prompt = texts if len(texts) > 1 else texts[0]
    if options.backend == "sglang":
        # No sampling_seed: early releases refuse the name, and temperature 0 does not sample.
        payload: dict[str, Any] = {
            "text": prompt,
            "sampling_params": {
                "temperature": 0,
                "max_new_tokens": options.max_new_tokens,
                "ignore_eos": options.ignore_eos,
            },
            "stream": True,
        }
    else:
        payload = {
            "model": model,
            "prompt": prompt,
            "max_tokens": options.max_new_tokens,
            "temperature": 0,
            "seed": options.seed,
            "ignore_eos": options.ignore_eos,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
    return json.dumps(payload, ensure_ascii=False).encode()


def streams_to_send(
    options: Options, model: str, prompts: Prompts, first: int, total: int | None
) -> Iterator[Stream]:
    """The requests in order. Prompts are numbered from `first`, `total` in all (None: no end)."""
    rng = random.Random(options.seed)
    due_s = 0.0
    for done in itertools.count(0, options.batch):
        size = options.batch if total is None else min(options.batch, total - done)
        if size <= 0:
            return
        texts = [prompts[first + done + i] for i in range(size)]
        stream = Stream(body=request_body(options, model, texts), prompts=size)
        if options.request_rate is not None:
            stream.due_offset_ns = round(due_s * 1e9)
            due_s += rng.expovariate(options.request_rate)
        yield stream


def streams_beside(options: Options, model: str, first: int) -> Iterator[Stream]:
    """Without end: single prompts of --beside-input-len for one new token, --beside-rate a second;
    none without that. They are numbered apart from those of the load, which begin at `first`."""
    if options.beside_rate is None:
        return
    alone = beside_options(options)
    prompts = Prompts(alone)
    rng = random.Random(f"{options.seed} beside")
    due_s = 0.0
    for number in itertools.count(first + BESIDE):
        due_s += rng.expovariate(options.beside_rate)
        body = request_body(alone, model, [prompts[number]])
        yield Stream(body=body, prompts=1, due_offset_ns=round(due_s * 1e9), beside=True)


def control_options(options: Options) -> Options:
    """The control: a closed loop of one short synthetic prompt at a time, for one token each, whose
    TTFT decode CUDA graphs cannot change. Where it differs between two runs, something else did."""
    alone = {"batch": 1, "concurrency": 1, "request_rate": None, "duration_s": None}
    short = {"prompts": None, "input_len": CONTROL_WORDS, "max_new_tokens": 1}
    return Options(**(vars(options) | alone | short))


def control_streams(alone: Options, model: str) -> Iterator[Stream]:
    """The requests, `alone` from control_options: --control and, ahead, one that does not count."""
    return streams_to_send(alone, model, Prompts(alone), CONTROL_FIRST, alone.control + 1)

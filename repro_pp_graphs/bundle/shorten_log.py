"""A log, cut to the lines that tell something."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from repro_pp_graphs.environment.text_secrets import without_private_keys

WHOLE = 150  # lines: a log this short stays as it is
HEAD, TAIL = 40, 60
BEFORE, AFTER = 2, 8  # lines kept around an error or a warning
SAME = 3  # times that lines equal but for their numbers are kept
SAMPLE = 24  # decode lines, and as many prefill lines
MOST = 1200  # lines
LINE_CHARS, ARGUMENTS_CHARS = 1000, 40_000

_PROMPT = re.compile(r"\b(?:Receive|Finish): (?:obj|rid)|\"request\.(?:received|finished)\"")
_TROUBLE = re.compile(
    r"error|exception|traceback|warn|fatal|fail|killed|abort|denied|refused|out of memory|"
    r"sigquit|SIG[A-Z]{3,}|\bXid\b|\bNCCL\b",
    re.IGNORECASE,
)
_STAGE = re.compile(
    r"server_args=|Init torch|Load weight|KV Cache|Memory pool|Capture .*graph|nccl==|"
    r"max_total_num_tokens|Uvicorn running|fired up"
)
_SAMPLED = (re.compile("Decode batch"), re.compile("Prefill batch"))


class Shortened(NamedTuple):
    """The text that is left, and what was cut in words (empty where nothing was)."""

    text: str
    note: str


def _shorten(line: str) -> str:
    """A line of bearable length, cut between words: half a secret would match no pattern."""
    most = ARGUMENTS_CHARS if "server_args" in line else LINE_CHARS
    if len(line) <= most:
        return line
    words = line[:most].rsplit(None, 1)
    head = words[0] if len(words) == 2 else ""
    return f"{head} [... {len(line) - len(head)} characters left out ...]"


def _stretch(lines: list[str], index: int) -> range:
    """The lines around a troubled one: to the end of its traceback, where it has one."""
    end = index + 1
    if "Traceback (most recent call last)" in lines[index]:
        while end < len(lines) and (lines[end].startswith((" ", "\t")) or not lines[end]):
            end += 1
        return range(max(0, index - BEFORE), min(len(lines), end + 1))
    return range(max(0, index - BEFORE), min(len(lines), end + AFTER))


def _telling(lines: list[str]) -> set[int]:
    """The indices of the lines to keep."""
    kept = {*range(HEAD), *range(max(0, len(lines) - TAIL), len(lines))}
    shapes: Counter[str] = Counter()
    sampled: list[list[int]] = [[] for _ in _SAMPLED]
    for index, line in enumerate(lines):
        if _STAGE.search(line):
            kept.add(index)
        elif _TROUBLE.search(line):
            shape = re.sub(r"0x[0-9a-f]+|\d+", "#", line)
            shapes[shape] += 1
            if shapes[shape] <= SAME:
                kept.update(_stretch(lines, index))
        for pattern, found in zip(_SAMPLED, sampled, strict=True):
            if pattern.search(line):
                found.append(index)
    for found in sampled:
        kept.update(found[:: -(-len(found) // SAMPLE) or 1])
    return kept


def shorten_log(text: str) -> Shortened:
    """Head, tail, errors and warnings, the server's arguments and stages, a sample of the rest.

    Lines that quote prompts (`--log-requests`) are left out; of a progress bar its last state
    stays.
    """
    raw = without_private_keys(text.replace("\0", " ")).removesuffix("\n").split("\n")
    lines = [_shorten(line.rstrip("\r").rsplit("\r", 1)[-1]) for line in raw]
    prompts = {index for index, line in enumerate(lines) if _PROMPT.search(line)}
    everything = set(range(len(lines)))
    chosen = everything if len(lines) <= WHOLE else _telling(lines) & everything
    order = sorted(chosen - prompts)
    if len(order) > MOST:
        order = order[: MOST // 2] + order[-MOST // 2 :]
    out, last = [], -1
    for index in [*order, len(lines)]:
        if index > last + 1:
            out.append(f"[... {index - last - 1} lines left out ...]")
        out += lines[index : index + 1]
        last = index
    notes = []
    if len(order) + len(prompts) < len(lines):
        notes.append(
            f"{len(order)} of {len(lines)} lines: head, tail, errors, warnings, stages, "
            "sampled batches"
        )
    if prompts:
        notes.append(f"{len(prompts)} lines that quote prompts left out")
    return Shortened("\n".join(out) + "\n", "; ".join(notes))

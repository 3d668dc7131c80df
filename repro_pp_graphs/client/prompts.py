"""The prompts to send: a file's lines, or synthetic ones."""

from __future__ import annotations

import random

from .options import Options, UsageError

# Short words that are one token each in the usual BPE vocabularies, so words come close to tokens.
SYNTHETIC_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world"),
    *("school", "state", "family", "group", "country", "problem", "hand", "part", "place", "case"),
    *("week", "company", "system", "program", "question", "work", "number", "night", "point"),
)
MOST_CHARS = 64 << 20  # of a file of prompts


class Prompts:
    """An endless, reproducible supply of prompts; negative numbers are for the warm-up."""

    def __init__(self, options: Options) -> None:
        self._input_len, self._seed = options.input_len, options.seed
        self._lines: list[str] = []
        if options.input_len is None and options.prompts is not None:
            try:
                with options.prompts.open(encoding="utf-8") as file:
                    text = file.read(MOST_CHARS + 1)
            except (OSError, UnicodeDecodeError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
                raise UsageError(
                    f"--prompts {options.prompts}: {reason}; give a file with one prompt a line, "
                    "or --input-len N"
                ) from exc
            if len(text) > MOST_CHARS:
                raise UsageError(
                    f"--prompts {options.prompts}: more than {MOST_CHARS >> 20} MiB; give less"
                )
            self._lines = [line for line in map(str.strip, text.splitlines()) if line]
            if not self._lines:
                raise UsageError(f"--prompts {options.prompts}: the file holds no prompt")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> str:
        if self._input_len is None:
            return self._lines[number % len(self._lines)]
        rng = random.Random(f"{self._seed} {number}")
        return " ".join(rng.choices(SYNTHETIC_WORDS, k=self._input_len))


def prompts_in_all(options: Options, prompts: Prompts) -> int | None:
    """How many prompts a run sends; None when only --duration ends it."""
    if options.num_prompts is not None or options.duration_s is not None:
        return options.num_prompts
    if options.request_rate is not None:
        return len(prompts) or 32
    return options.batch * (options.concurrency or 1)

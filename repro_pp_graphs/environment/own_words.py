"""Words of this project's own texts. A host or a user may be called like one of them: to hide it
there would take the word out of commands, records and reports."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

# what writes those texts: the package, its documents, the names of sglang's options
_SOURCES = ("repro_pp_graphs/**/*.py", "*.py", "*.md", "docs/*.md", "requirements/arguments/*.txt")


@lru_cache(maxsize=512)
def as_word(name: str) -> re.Pattern[str]:
    """Where a name stands in a text as a word, or as a part between dashes, dots or spaces."""
    word = re.escape(name)
    return re.compile(f"{word}(?<![A-Za-z0-9_]{word})(?![A-Za-z0-9_])")


@lru_cache(maxsize=1)
def _sources() -> str:
    """All of them that lie beside this package: a copy of it has fewer."""
    root = Path(__file__).resolve().parents[2]
    paths = [path for pattern in _SOURCES for path in sorted(root.glob(pattern))]
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in paths)


@lru_cache(maxsize=512)
def is_own_word(name: str) -> bool:
    """Whether this project's own texts have it as a word."""
    text = _sources()
    return name in text and as_word(name).search(text) is not None

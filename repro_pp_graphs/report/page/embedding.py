"""JSON inside a script element of report.html. Standard library only: the bundle reads it too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

OPENS = '<script type="application/json" id="facts">'
CLOSES = "</script>"
# the facts, and what may not change: the page lets only this script and this style in
FACTS = re.compile(f"{re.escape(OPENS)}(.*?){CLOSES}", re.DOTALL)
FIXED = re.compile(r"<script>.*?</script>|<style>.*?</style>|<meta http-equiv=[^>]*>", re.DOTALL)


def embedded(value: object) -> str:
    """JSON that may stand in a script element: nothing in it can end that."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def each_text(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - any JSON
    """A JSON value with its keys and texts changed, its many numbers as they are."""
    known = lru_cache(maxsize=None)(change)

    def changed(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, dict):
            return {known(key): changed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [changed(each) for each in value]
        return known(value) if isinstance(value, str) else value

    return changed(value)

"""A table of a report as rows of text, whichever file it is written to."""

from __future__ import annotations

import msgspec


class Table(msgspec.Struct, kw_only=True):
    """Rows of text below a head; the first column says what a row is, `note` how to read it."""

    head: list[str]
    rows: list[list[str]]
    note: str = ""

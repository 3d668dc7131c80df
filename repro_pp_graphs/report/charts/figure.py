"""A picture of report.html: its data, and the table of the same numbers."""

from __future__ import annotations

from typing import Any

import msgspec

from repro_pp_graphs.report.tables.table import Table


class Figure(msgspec.Struct, kw_only=True):
    """A picture: where it goes, what to see in it, its data, the table of the same numbers."""

    id: str
    title: str
    caption: str
    alt: str  # in words, for who cannot see it
    data: dict[str, Any]
    table: Table

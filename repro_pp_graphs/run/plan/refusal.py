"""Why nothing is started."""

from __future__ import annotations


class PlanError(ValueError):
    """What was asked for cannot run; the message says what to do."""

"""Ctrl-C and SIGTERM: they end the measurement, and its result is still written."""

from __future__ import annotations

import signal


def interrupt_on_signals() -> None:
    """SIGINT and SIGTERM raise KeyboardInterrupt, once."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def ignore_signals() -> None:
    """From now on what was measured is being written; a second Ctrl-C must not lose it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _interrupt(*_: object) -> None:
    ignore_signals()
    raise KeyboardInterrupt

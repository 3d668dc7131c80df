"""Programs that tests run to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def ran(
    command: Sequence[str | Path], timeout: float = 600, check: bool = False, **how: Any
) -> subprocess.CompletedProcess[str]:
    """A program that has ended: its exit status, and what it printed; `how`: as subprocess.run."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=check, **how
    )

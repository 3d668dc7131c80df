"""A process by pid: does it still run?"""

from __future__ import annotations

from pathlib import Path


def alive(pid: int) -> bool:
    """True while the process runs; a zombie that waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    # the state follows the command name, which may itself hold spaces and brackets
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")

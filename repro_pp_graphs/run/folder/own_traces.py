"""Are the traces in a launch's folder those that its own profile wrote?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from repro_pp_graphs.run.folder import previous
from repro_pp_graphs.traces.read.identity import is_trace


class Strangers(NamedTuple):
    """What differs from the files that the profile saw whole; both empty unprofiled."""

    more: list[str]  # files that came in beside them, relative to --out
    lost: list[str]  # those that are gone or have another size, by name


def strangers(out: Path, label: str, seen: dict[str, int] | None) -> Strangers:
    """What is not of the launch's profile in its trace folder, and what of it is not there; `seen`:
    the sizes in bytes of the files that the profile saw whole, by name."""
    sizes = seen or {}
    folder = out / "trace" / label
    there = {path.name: path.stat().st_size for path in folder.glob("*") if is_trace(path)}
    more = [f"trace/{label}/{name}" for name in there if sizes and name not in sizes]
    return Strangers(more, [name for name, size in sizes.items() if there.get(name) != size])


def claim(out: Path, label: str, seen: dict[str, int] | None) -> tuple[str, str]:
    """Move aside what is not of the launch's profile: a line on that, and why the launch fails
    where some of its own is gone or changed; either may be empty."""
    more, lost = strangers(out, label, seen)
    line = previous.clear(out, more)
    return line, (
        f"{out}/trace/{label}: {', '.join(lost)} changed after the profile" if lost else ""
    )

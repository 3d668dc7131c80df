"""The environments of requirements/releases, which run_repro.sh makes: .venv-<release>."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs import files
from repro_pp_graphs.server.release.installed import version_numbers

# what each takes, as installed
DISK_GB = {".venv-0.5.2": 8.9, ".venv-0.5.6.post2": 11, ".venv-0.5.23": 11, ".venv-cpu": 2.4}


class NotMade(Exception):
    """A case names a release whose environment run_repro.sh has to make first."""

    def __init__(self, release: str) -> None:
        super().__init__(release)
        self.release = release


def releases(root: Path) -> list[str]:
    """Those that have a lock, the oldest first."""
    locks = (root / "requirements" / "releases").glob("*.txt")
    return sorted((path.stem for path in locks), key=version_numbers)


def arguments(root: Path, version: str) -> frozenset[str]:
    """The names of the arguments that a release takes, whether it is installed or not; empty for
    one of which no list is kept."""
    path = root / "requirements" / "arguments" / f"{version}.txt"
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()


def python_of(root: Path, release: str) -> str:
    """The interpreter of a release's environment, made or not."""
    return str(root / f".venv-{release}" / "bin" / "python")


def is_made(root: Path, release: str) -> bool:
    """Whether the environment holds what its lock asks for, and has a Python. Raises OSError."""
    made_of = root / f".venv-{release}" / ".lock"
    lock = root / "requirements" / "releases" / f"{release}.txt"
    if not made_of.is_file() or not Path(python_of(root, release)).exists():
        return False
    return made_of.read_text(encoding="utf-8").strip() == files.sha256(lock)

"""The kept inputs: tests/data/fuzz/TARGET.tar.xz, one member an input."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "fuzz"


def path_of(target: str) -> Path:
    return FOLDER / f"{target}.tar.xz"


def load(target: str) -> list[bytes]:
    """Every kept input of a target; none where nothing has been kept."""
    if not path_of(target).exists():
        return []
    with tarfile.open(path_of(target)) as archive:
        return [found.read() for one in archive if (found := archive.extractfile(one))]


def store(target: str, inputs: list[bytes]) -> Path:
    """Write a target's inputs, the same bytes for the same inputs."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path_of(target), "w:xz") as archive:
        for number, data in enumerate(inputs):
            member = tarfile.TarInfo(f"{number}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path_of(target)

"""Decisions of a structured input, taken from its bytes: the same bytes, the same decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Bytes read as numbers; once they are used up every number is 0."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, below: int) -> int:
        """0 <= number < below, from as many bytes as that takes."""
        size = max(1, ((below - 1).bit_length() + 7) // 8)
        taken = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(taken, "little") % below

    def one_of(self, values: Sequence[T]) -> T:
        return values[self.number(len(values))]

    def some(self, most: int) -> bytes:
        """Up to `most` bytes as they are."""
        size = self.number(most + 1)
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def rest(self) -> bytes:
        taken = self.data[self.at :]
        self.at = len(self.data)
        return taken

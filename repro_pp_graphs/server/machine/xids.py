"""The Xids in the kernel's log: errors that the NVIDIA driver reports of a GPU, in a few words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

# as NVIDIA's catalogue of Xids has them; others are named by their number alone
MEANINGS = {
    13: "graphics engine exception",
    31: "GPU memory page fault",
    32: "invalid or corrupted push buffer",
    38: "driver firmware error",
    43: "GPU stopped processing",
    45: "channel ended, as a rule after an earlier error",
    48: "double-bit ECC error",
    61: "internal microcontroller warning",
    62: "internal microcontroller halt",
    63: "ECC page retirement or row remapping",
    64: "ECC page retirement or row remapping failed",
    69: "graphics engine class error",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    92: "high rate of single-bit ECC errors",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "GSP timeout",
    120: "GSP error",
}
# of errors that were corrected: what was computed is right (an uncorrected one is counted, and has
# an Xid of its own)
CORRECTED = frozenset({63, 92})
_LINE = re.compile(r"NVRM: Xid.*")
_PARTS = re.compile(
    r"NVRM: Xid \(PCI:[^)]*\): (?P<number>\d{1,4})\b(?:.*?\bname=(?P<name>[^,\s]+))?"
)
# NVRM: Xid (PCI:0000:04:00): 79, ...; nvidia-smi says 00000000:04:00.0
_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})", re.IGNORECASE)
MOST_OF_A_LINE = 100

Address = tuple[int, ...]


class Owned(NamedTuple):
    """Lines of the GPUs of a launch, or of GPUs that may be its own, and of others."""

    own: list[str]
    others: list[str]


def lines_in(text: str) -> list[str]:
    """Each Xid's line, without what stands before it."""
    return _LINE.findall(text)


def address(text: object) -> Address | None:
    """PCI domain, bus and device in a text."""
    found = _ADDRESS.search(str(text))
    return tuple(int(part, 16) for part in found.groups()) if found else None


def new(before: Sequence[str] | None, after: Sequence[str] | None) -> list[str]:
    """Lines that the log has gained; none where it could not be read before."""
    if before is None:
        return []
    return list((Counter(after or ()) - Counter(before)).elements())


def owned(lines: Iterable[str], gpus: Iterable[dict[str, Any]]) -> Owned:
    """Lines by whose they are: an address that is not known, on either side, may be that of a GPU
    of the launch (`gpus`: its rows of gpu_counters)."""
    ours = {address(row.get("pci.bus_id", "")) for row in gpus}
    found = Owned([], [])
    for line in lines:
        own = None in ours or address(line) in (None, *ours)
        (found.own if own else found.others).append(line)
    return found


def corrected(line: str) -> bool:
    """Whether a line is of errors that were corrected."""
    parts = _PARTS.match(line)
    return parts is not None and int(parts["number"]) in CORRECTED


def words(lines: Iterable[str], gpus: Iterable[dict[str, Any]]) -> list[str]:
    """`Xid 31 (GPU memory page fault) on GPU 0, GPU 1: nvidia-cuda-mps`: a text for each number;
    a line of another form as it is, cut."""
    names = {address(row.get("pci.bus_id")): f"GPU {row.get('index', '?')}" for row in gpus}
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for line in lines:
        parts, where = _PARTS.match(line), address(line)
        if not parts or where is None:
            found.setdefault(line[:MOST_OF_A_LINE], ({}, {}))
            continue
        number = int(parts["number"])
        meaning = f" ({MEANINGS[number]})" if number in MEANINGS else ""
        whose, programs = found.setdefault(f"Xid {number}{meaning}", ({}, {}))
        whose[names.get(where) or "PCI {:04x}:{:02x}:{:02x}".format(*where)] = None
        if parts["name"] and "unknown" not in parts["name"]:
            programs[parts["name"]] = None
    return [
        what
        + (f" on {', '.join(sorted(whose))}" if whose else "")
        + (f": {', '.join(programs)}" if programs else "")
        for what, (whose, programs) in found.items()
    ]

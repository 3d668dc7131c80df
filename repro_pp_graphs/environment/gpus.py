"""Facts on the GPUs, from nvidia-smi, the kernel's log, or AMD's tools."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from repro_pp_graphs.environment.facts import Facts, count, spread
from repro_pp_graphs.environment.programs import Answer, Programs, slurp
from repro_pp_graphs.environment.system import first

_LIMIT_S = 5  # of each call: with many GPUs and persistence mode off it takes seconds
# fmt: off
_FIELDS = (
    "name", "driver_version", "vbios_version", "compute_cap", "pci.bus_id",
    "pcie.link.gen.current", "pcie.link.gen.max", "pcie.link.width.current", "memory.total",
    "memory.used", "utilization.gpu", "temperature.gpu", "pstate", "clocks.sm", "clocks.max.sm",
    "clocks.mem", "clocks.max.mem", "power.draw", "clocks.applications.graphics",
    "clocks.applications.memory", "power.limit", "power.default_limit", "persistence_mode",
    "compute_mode", "mig.mode.current", "fabric.state", "ecc.mode.current",
    "ecc.errors.corrected.volatile.total", "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total", "retired_pages.pending",
    "clocks_throttle_reasons.active", "clocks_event_reasons.active",
)
# bits of nvmlClocksEventReason* in nvml.h, lowest first
_REASONS = (
    "idle", "application clocks", "software power cap", "hardware slowdown", "sync boost",
    "software thermal", "hardware thermal", "power brake", "display clocks",
)
_ROCM_SMI = (
    "rocm-smi", "--showproductname", "--showdriverversion", "--showvbios", "--showclocks",
    "--showmeminfo", "vram",
)
# fmt: on
_HEADINGS = {"Remapped Rows": "remapped rows", "Clocks Event Reasons Counters": "held back"}
_ANSI = re.compile("\x1b\\[[0-9;]*[a-zA-Z]")


def collect(facts: Facts, programs: Programs) -> None:
    """The section "gpus", and GPUs, driver and topology of the summary."""
    facts.add("summary", "driver", "not found")
    module = first("NVRM version: (.*)", slurp("/proc/driver/nvidia/version"))
    if module:
        facts.add("gpus", "kernel module", module)
        facts.add("summary", "driver", module)
    fields, answer = _query(programs)
    if not answer.ok:
        text = answer.text or "failed without a word"
        facts.add("gpus", "nvidia-smi", text)
        facts.add("summary", "GPUs", text.split("\n")[0])
        _collect_amd(facts, programs)
        return
    rows = [line.split(",") for line in answer.text.split("\n")]
    _add_table(facts, fields, rows)
    _add_details(
        facts, programs.ask(_LIMIT_S, "nvidia-smi", "-q", "-d", "PERFORMANCE,ROW_REMAPPER")
    )
    apps = "--query-compute-apps=gpu_bus_id,pid,process_name,used_memory"
    running = programs.ask(_LIMIT_S, "nvidia-smi", apps, "--format=csv,noheader")
    facts.add("gpus", "processes", running.text or "none seen")
    _add_links(facts, programs, len(rows))
    facts.add("gpus", "Xid lines", _xid_lines(facts, programs.ask(2, "dmesg")))


def _query(programs: Programs) -> tuple[list[str], Answer]:
    """The fields that this driver knows, and a row a GPU as CSV or why there is none."""
    fields = list(_FIELDS)
    while True:
        query = f"--query-gpu={','.join(fields)}"
        answer = programs.ask(_LIMIT_S, "nvidia-smi", query, "--format=csv,noheader")
        unknown = first('Field "([^"]+)" is not a valid', answer.text)
        if answer.ok or unknown not in fields:
            return fields, answer
        fields.remove(unknown)


def _add_table(facts: Facts, fields: list[str], rows: list[list[str]]) -> None:
    """One fact a field, over all GPUs."""
    for column, field in enumerate(fields):
        values = [row[column].strip() if column < len(row) else "" for row in rows]
        if field.endswith("_reasons.active"):
            values = [_reasons(value) for value in values]
        text = spread(values)
        facts.add("gpus", field, text)
        if field == "name":
            facts.add("summary", "GPUs", f"{len(rows)} x {text}")
        elif field == "driver_version":
            facts.add("summary", "driver", text)
        elif field == "persistence_mode" and "Disabled" in text:
            facts.note("persistence mode is off: clocks and first-call times vary")
        elif "_reasons." in field and re.search("hardware|thermal|brake", text):
            facts.note(f"GPUs are throttled: {text}")
        elif ".uncorrected." in field and any(re.match("[1-9]", each) for each in values):
            facts.note(f"uncorrected ECC errors: {text}")


def _reasons(bits: str) -> str:
    """ "software power cap + hardware thermal" of 0x44; other texts as they are."""
    if not re.fullmatch("0x[0-9a-fA-F]+", bits):
        return bits
    number = int(bits, 16)
    words = [word for bit, word in enumerate(_REASONS) if number >> bit & 1]
    return " + ".join(words) or "none"


def _details(text: str) -> Iterator[tuple[str, str]]:
    """(key, value) of each GPU in turn, of what only `nvidia-smi -q` knows: remapped rows, and how
    long a GPU was held back (drivers since 560)."""
    heading = ""
    for line in text.split("\n"):
        title = re.match(r" {4}([A-Z][^:]*[^: ]) *$", line)
        heading = title[1] if title else heading
        pair = re.match(r" {8}([^ :][^:]*[^ :]) *: (.+)$", line)
        if pair and heading in _HEADINGS:
            yield f"{_HEADINGS[heading]}, {pair[1].lower()}", pair[2]


def _add_details(facts: Facts, answer: Answer) -> None:
    by_key: dict[str, list[str]] = {}
    for key, value in _details(answer.text if answer.ok else ""):
        by_key.setdefault(key, []).append(value)
    for key, values in by_key.items():
        text = spread(values)
        facts.add("gpus", key, text)
        if re.search("pending|failure", key) and "Yes" in text:
            facts.note(f"GPU memory: {key}: {text}")


def _table(answer: Answer) -> str:
    """A table of nvidia-smi topo with narrow columns and no legend."""
    if not answer.ok:
        return answer.text
    return _ANSI.sub("", answer.text.split("\nLegend")[0]).expandtabs(7)


def _add_links(facts: Facts, programs: Programs, gpus: int) -> None:
    matrix = _table(programs.ask(_LIMIT_S, "nvidia-smi", "topo", "-m"))
    facts.add("gpus", "topology", matrix)
    facts.add("summary", "topology", count(_pair_links(matrix, gpus)))
    facts.add("gpus", "P2P read", _table(programs.ask(_LIMIT_S, "nvidia-smi", "topo", "-p2p", "r")))
    answer = programs.ask(_LIMIT_S, "nvidia-smi", "nvlink", "--status")
    text = answer.text
    if answer.ok:
        lines = (line.strip() for line in text.split("\n"))
        text = count(line.split(": ")[-1] for line in lines if line.startswith("Link "))
    facts.add("gpus", "NVLinks, all GPUs", text or "none reported")


def _pair_links(matrix: str, gpus: int) -> Iterator[str]:
    """The link of each pair of GPUs."""
    for line in matrix.split("\n"):
        cells = line.split()
        number = first(r"^GPU(\d+)$", cells[0]) if cells else ""
        if number and not "".join(cells[1:2]).startswith("GPU"):  # no head of the table
            for index in range(int(number) + 2, gpus + 1):
                yield cells[index] if index < len(cells) else "?"


def _xid_lines(facts: Facts, answer: Answer) -> str:
    if not answer.ok:
        return answer.text
    lines = [line.strip() for line in answer.text[-99_999:].split("\n") if "NVRM: Xid" in line]
    if lines:
        facts.note("the kernel log has Xid lines (GPU errors)")
    return "\n".join(lines) or "none in dmesg"


def _collect_amd(facts: Facts, programs: Programs) -> None:
    names = [
        slurp(device / "product_name") or "AMD GPU"
        for device in sorted(Path("/sys/class/drm").glob("card*/device"))
        if slurp(device / "vendor") == "0x1002"
    ]
    if names:
        facts.add("summary", "GPUs", count(names))
    module = slurp("/sys/module/amdgpu/version")
    if module:
        facts.add("gpus", "amdgpu module", module)
        facts.add("summary", "driver", f"amdgpu {module}")
    amd_smi = ("amd-smi", "static", "--asic", "--bus", "--driver", "--vram")
    answer = programs.ask(_LIMIT_S, *amd_smi)
    if answer.status == 127:
        answer = programs.ask(_LIMIT_S, *_ROCM_SMI)
    missing = answer.status == 127
    facts.add("gpus", "AMD tools", "amd-smi, rocm-smi: not found" if missing else answer.text)

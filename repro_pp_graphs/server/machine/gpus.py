"""The GPUs that a run may use: what nvidia-smi lists, as CUDA_VISIBLE_DEVICES narrows it.

What cannot be counted is an error, never "no GPU": a rehearsal on the CPU must not be mistaken for
a run on a GPU that nvidia-smi could not show.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from repro_pp_graphs.terminal import Parser, complain

LIMIT_S = 10.0  # for nvidia-smi, which waits for ever where a GPU or its driver hangs
QUERY = "index,uuid,name,memory.total,memory.used"
MIG_MODE = "mig.mode.current"  # drivers before 450 do not know it
HIDING = ("", "NoDevFiles", "none", "void")  # Slurm and containers write such words for no GPU
_MIG_LINE = re.compile(r"\s+MIG (?P<profile>\S+)\s+Device\s+\d+:\s+\(UUID: (?P<uuid>MIG-\S+)\)")
_GPU_LINE = re.compile(r"GPU (?P<index>\d+): (?P<name>.*) \(UUID: ")
_INDEX = re.compile(r"[+-]?\d+")
_NAME = re.compile(r"(?i:GPU-[0-9a-f-]+|MIG-\S+)")


class GpuError(RuntimeError):
    """The GPUs cannot be counted; the message says why, and what to do.

    Who catches it adds its option for a run without GPUs.
    """


@dataclass(frozen=True)
class Gpu:
    """One GPU, or MIG device: memory in MiB as nvidia-smi counts it, 0 where it does not say."""

    index: str
    uuid: str
    name: str
    total_mib: int
    used_mib: int
    mig: bool = False  # the GPU is cut into MIG devices, and of no use whole
    assumed: bool = False  # need not exist: of a dry run


class Seen(NamedTuple):
    """The GPUs that CUDA will show, and why not all that there are; empty where it shows all."""

    gpus: list[Gpu]
    remark: str = ""


ASSUMED_GB, ASSUMED_MIB = 80, 81559  # of an H100: what it is sold as, and what nvidia-smi says


def assumed(count: int, each_gb: int = ASSUMED_GB) -> Seen:
    """So many empty GPUs that need not exist, to plan with, of so many GB as they are sold: MiB in
    proportion to an H100's (0.02 % from an H200's)."""
    mib = ASSUMED_MIB * each_gb // ASSUMED_GB
    made = [
        Gpu(str(n), f"GPU-assumed-{n}", f"{each_gb} GB (assumed)", mib, 0, assumed=True)
        for n in range(count)
    ]
    counted = f"as sold: {mib} MiB, {mib * 2**20 / 1e9:.1f} GB of 10^9 bytes"
    return Seen(made, f"{count} of {each_gb} GB assumed (--gpus), {counted}")


def parse(csv: str) -> list[Gpu]:
    """Read nvidia-smi's answer to QUERY, with or without MIG_MODE (csv, no units)."""
    gpus = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) in (5, 6) and cells[0].isdigit():
            # a GPU that shares the host's memory reports [N/A], one cut into MIG devices no more
            total_mib, used_mib = (int(cell) if cell.isdigit() else 0 for cell in cells[3:5])
            mig = cells[5:] == ["Enabled"]
            gpus.append(Gpu(cells[0], cells[1], cells[2], total_mib, used_mib, mig))
    return gpus


def parse_mig(listing: str) -> list[Gpu]:
    """Read the MIG devices of `nvidia-smi -L`; `index` is that of the GPU they are part of."""
    found, index, name = [], "", ""
    for line in listing.splitlines():
        if gpu := _GPU_LINE.match(line):
            index, name = gpu["index"], gpu["name"]
        elif device := _MIG_LINE.match(line):
            title = f"MIG {device['profile']} of {name}"
            found.append(Gpu(index, device["uuid"], title, 0, 0, mig=True))
    return found


def visible(gpus: list[Gpu], mig: list[Gpu], wanted: str | None) -> Seen:
    """What CUDA shows of `gpus` and their MIG devices for CUDA_VISIBLE_DEVICES=`wanted`.

    As seen with the 580 driver: a list ends at the first name that is not there, or of another
    kind than the first; a GPU named twice fails every CUDA call. Raises GpuError for that, and
    where the first name is none of a device.
    """
    if wanted is None:
        return _without_mig_mode(gpus, mig)
    parts = [part.strip() for part in wanted.split(",")]
    setting = f"CUDA_VISIBLE_DEVICES={wanted}"
    if parts[0] in HIDING or (_INDEX.fullmatch(parts[0]) and int(parts[0]) < 0):
        return Seen([], f"{setting} hides {len(gpus)} GPU(s)" if gpus else "")
    chosen: list[Gpu] = []
    for part in parts:
        found = _named(part, gpus, mig) if _kind(part) == _kind(parts[0]) else []
        if len(found) != 1:
            break
        chosen += found
    if not chosen:
        raise GpuError(f"{setting}: {_fault(parts[0], gpus, mig)}; mend or unset it")
    if len(set(chosen)) < len(chosen):
        raise GpuError(f"{setting}: CUDA refuses a GPU that is named twice; name each once")
    rest = parts[len(chosen) :]
    remark = f"{setting}: CUDA stops at '{rest[0]}'" if rest and any(rest) else ""
    seen = _without_mig_mode(chosen, mig)
    return Seen(seen.gpus, seen.remark or remark)


def _kind(part: str) -> str:
    return "index" if _INDEX.fullmatch(part) else part[:4].upper()


def _named(part: str, gpus: list[Gpu], mig: list[Gpu]) -> list[Gpu]:
    """The devices that one name of CUDA_VISIBLE_DEVICES fits: an index, or a uuid's beginning."""
    if _INDEX.fullmatch(part):
        return [gpu for gpu in gpus if int(gpu.index) == int(part)]
    if not _NAME.fullmatch(part):
        return []
    return [one for one in (*gpus, *mig) if one.uuid.lower().startswith(part.lower())]


def _fault(part: str, gpus: list[Gpu], mig: list[Gpu]) -> str:
    """Why a first name is none of a device."""
    if not _INDEX.fullmatch(part) and not _NAME.fullmatch(part):
        return f"'{part}' is no index, GPU-<uuid> or MIG-<uuid>"
    if len(_named(part, gpus, mig)) > 1:
        return f"more than one device begins with '{part}'"
    listed = mig if part.upper().startswith("MIG-") else gpus
    names = [one.index if _INDEX.fullmatch(part) else one.uuid for one in listed]
    return f"nvidia-smi lists no such device, but {', '.join(names[:4]) or 'none of that kind'}"


def _without_mig_mode(chosen: list[Gpu], mig: list[Gpu]) -> Seen:
    """A GPU in MIG mode stands for its devices, of which CUDA gives a process only one.

    Where there is one CUDA shows no whole GPU beside it. Raises GpuError for MIG mode without a
    device.
    """
    if not any(gpu.mig for gpu in chosen):
        return Seen(chosen)
    devices = [gpu for gpu in chosen if gpu.uuid.startswith("MIG-")]
    indices = {gpu.index for gpu in chosen if gpu.mig}
    devices = devices or [device for device in mig if device.index in indices]
    if devices:
        more = len(devices) > 1 or len(chosen) > 1
        remark = "CUDA gives a process one MIG device, and no GPU beside it" if more else ""
        return Seen(devices[:1], remark)
    whole = [gpu for gpu in chosen if not gpu.mig]
    if not whole:
        names = ", ".join(sorted(indices))
        raise GpuError(
            f"GPU {names} is in MIG mode without a MIG device (nvidia-smi -L): make one, or end "
            "MIG mode"
        )
    return Seen(whole, "GPUs in MIG mode without a MIG device are left out")


def _ask(command: list[str]) -> tuple[int, str]:
    """A tool's exit status and what it printed. Raises GpuError where it does not answer."""
    import subprocess  # noqa: PLC0415 - 4 ms, and most steps run no program

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise GpuError(
            f"{command[0]} has not answered in {LIMIT_S:.0f} s: a GPU or its driver hangs (see "
            "dmesg; a restart may be due)"
        ) from None
    except OSError as error:
        raise GpuError(f"{command[0]} does not run ({error.strerror}): mend it") from None
    return done.returncode, done.stdout + done.stderr


def listed() -> list[Gpu]:
    """All GPUs that nvidia-smi lists; empty where there is none. Raises GpuError for no answer."""
    if not shutil.which("nvidia-smi"):
        return []
    form = "--format=csv,noheader,nounits"
    status, text = _ask(["nvidia-smi", f"--query-gpu={QUERY},{MIG_MODE}", form])
    if MIG_MODE in text:  # "... is not a valid field to query"
        status, text = _ask(["nvidia-smi", f"--query-gpu={QUERY}", form])
    gpus = parse(text)
    none_there = "No devices were found" in text
    # the tool without a driver, as some images have it
    no_driver = "communicate with the NVIDIA driver" in text and not on_the_bus()
    if not gpus and status and not none_there and not no_driver:
        said = next(iter(text.split("\n")), "").strip().rstrip(".")
        raise GpuError(f"nvidia-smi: {said or f'exit {status}'}: mend the driver")
    return gpus


def on_the_bus() -> int:
    """NVIDIA's display and compute devices on the PCI bus; in a container those of its host."""
    found = 0
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        found += vendor == "0x10de" and kind.startswith("0x03")
    return found


def check_for_amd() -> None:
    """Raises GpuError where AMD's tools list GPUs: they must not pass for none."""
    for command in (["rocm-smi", "--showid"], ["amd-smi", "list"]):
        if shutil.which(command[0]) and re.search(r"\bGPU\b\W*\d", _ask(command)[1]):
            raise GpuError(
                f"{command[0]} lists AMD GPUs, and this harness drives NVIDIA's only: run it "
                "where those are"
            )


def find() -> Seen:
    """The GPUs that CUDA will show now. Raises GpuError where they cannot be counted."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = listed()
    if not gpus:
        check_for_amd()
        unseen = on_the_bus() if not shutil.which("nvidia-smi") else 0
        return Seen(
            [],
            f"{unseen} NVIDIA GPU(s) are on the PCI bus, but there is no nvidia-smi: a container "
            "without --gpus all?"
            if unseen
            else "",
        )
    named_mig = (wanted or "").upper().startswith("MIG-")
    cut = named_mig or any(gpu.mig for gpu in gpus)
    mig = parse_mig(_ask(["nvidia-smi", "-L"])[1]) if cut else []
    return visible(gpus, mig, wanted)


def main(argv: list[str]) -> int:
    """gpus: prints what an environment is needed for, gpu or cpu; 2 where it cannot tell."""
    Parser("gpus", "", main.__doc__ or "", "").parse_args(argv)
    try:
        print("gpu" if find().gpus else "cpu")
    except GpuError as error:
        complain("run_repro.sh", f"{error}, or --cpu for a rehearsal")
        return 2
    return 0

"""The NCCL and CUDA libraries that a process here would load, asked through ctypes."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Library(NamedTuple):
    """One libnccl: how it would come to be loaded, its file, its version or why there is none."""

    where: str
    path: str
    version: str
    error: str = ""


def decode_nccl(code: int) -> str:
    """ "2.27.5" from 22705 (NCCL_VERSION in nccl.h: thousands up to 2.8, ten thousands after)."""
    major = 10000 if code >= 10000 else 1000
    return f"{code // major}.{code % major // 100}.{code % 100}"


def ask(where: str, path: str) -> Library:
    """Load a libnccl and call ncclGetVersion, which touches no GPU."""
    code = ctypes.c_int()
    try:
        ctypes.CDLL(path).ncclGetVersion(ctypes.byref(code))
    except (OSError, AttributeError) as error:
        return Library(where, path, "", str(error))
    return Library(where, path, decode_nccl(code.value))


def mapped_nccl(pid: str) -> str:
    """The libnccl file mapped into a process; OSError when its maps are not readable."""
    for line in Path("/proc", pid, "maps").read_text().splitlines():
        if "libnccl.so" in line:
            return line.split(None, 5)[5]
    return ""


def nccl(server_pids: list[str], sites: list[str]) -> Iterator[Library]:
    """Every libnccl found, those that override others first; sites: pip's folders, in order."""
    # By its bare name before any full path: afterwards the loader would hand out that one.
    linked = ask("found by the linker", "libnccl.so.2")
    if linked.version:
        linked = linked._replace(path=mapped_nccl("self"))
    for pid in server_pids:
        try:
            path = mapped_nccl(pid)
        except OSError:
            continue
        if path:
            yield ask(f"in process {pid}", path)
    if os.environ.get("SGLANG_NCCL_SO_PATH"):
        yield ask("in SGLANG_NCCL_SO_PATH", os.environ["SGLANG_NCCL_SO_PATH"])
    for path in re.split("[: ]", os.environ.get("LD_PRELOAD", "")):
        if "nccl" in path:
            yield ask("in LD_PRELOAD", path)
    found = (path for site in sites for path in Path(site).glob("nvidia/*/lib/libnccl.so.2"))
    pip = next(found, None)
    if pip is not None:
        yield ask("in the pip package", str(pip))
    yield linked


def driver_cuda() -> str:
    """The CUDA version that the driver library supports, or why it is unknown."""
    code = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(code))
    except (OSError, AttributeError):
        return "libcuda.so.1: not found"
    return f"{code.value // 1000}.{code.value % 1000 // 10}"


def nccl_settings() -> Iterator[tuple[str, str]]:
    """(what, text) of NCCL's configuration files and of the plugins in library folders."""
    home = os.environ.get("HOME", "/")
    for name in (os.environ.get("NCCL_CONF_FILE", ""), f"{home}/.nccl.conf", "/etc/nccl.conf"):
        if name and Path(name).is_file():
            lines = map(str.strip, Path(name).read_text(errors="replace").splitlines())
            yield f"file {name}", "\n".join(line for line in lines if line and line[0] != "#")
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    folders += ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/amazon/ofi-nccl/lib"]
    folders += map(str, Path("/usr/lib").glob("*-linux-gnu"))
    for folder in dict.fromkeys(filter(None, folders)):
        for plugin in sorted(Path(folder).glob("libnccl-*.so*")):
            yield f"plugin {plugin.name}", str(plugin)

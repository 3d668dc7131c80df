"""Files of a node that does not see the head's --out, brought there through srun.

`node-files` runs on the node and writes a tar archive to stdout; `fetch` reads it on the head.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from repro_pp_graphs.server.nodes import allocation
from repro_pp_graphs.server.nodes.allocation import Node, Nodes, SlurmError

FETCH_LIMIT_S = 600.0


def fetch(found: Nodes, node: Node, out: Path, patterns: list[str]) -> list[Path]:
    """Copy a node's files that match the patterns (below --out) into the head's; those that came.

    A file appears once it is whole. Raises SlurmError where the node does not send them, OSError
    where they cannot be written.
    """
    words = [sys.executable, "-m", "repro_pp_graphs", "node-files", str(out), *patterns]
    process = subprocess.Popen(
        allocation.command(found.srun, node.name, words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    came = []
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                path = Path(member.name)
                if not member.isfile() or path.is_absolute() or ".." in path.parts:
                    continue
                came.append(_store(archive, member, out / path))
        error = process.stderr.read().decode(errors="replace")
        status = process.wait(FETCH_LIMIT_S)
    except (tarfile.TarError, EOFError, subprocess.TimeoutExpired) as fault:
        process.kill()
        raise SlurmError(f"{node.name} sent no whole archive of its files ({fault})") from None
    finally:
        process.stdout.close()
        process.stderr.close()
        process.wait()
    if status:
        last = next(iter(error.strip().splitlines()[-1:]), f"exit {status}")
        raise SlurmError(f"{node.name} does not send its files ({last})")
    return came


def _store(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Path:
    source = archive.extractfile(member)
    assert source  # it is a file
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    with draft.open("wb") as target:
        shutil.copyfileobj(source, target)
    draft.replace(path)
    return path


def matching(out: Path, patterns: list[str]) -> list[Path]:
    """The files below a folder that match any of the patterns, in order."""
    found = {path for pattern in patterns for path in out.glob(pattern) if path.is_file()}
    return sorted(found)


def main(argv: list[str]) -> int:
    """node-files OUT PATTERN...: a tar archive of these files on stdout; 0."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs node-files", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="below OUT, as trace/A/*")
    options = parser.parse_args(argv)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for path in matching(options.out, options.patterns):
            archive.add(path, str(path.relative_to(options.out)), recursive=False)
    return 0

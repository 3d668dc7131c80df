"""python -m repro_pp_graphs.bundle stage RUN FOLDER | pack FOLDER ARCHIVE (used by bundle.sh)."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

from repro_pp_graphs.bundle import issue, stage

ROOM = "issue_bundle"  # the folder that the archive unpacks to


def lay_out(run: Path, folder: Path) -> None:
    """Write the bundle's files, not yet masked, and the notes on them: a line `name TAB note`."""
    items = [*stage.items(run), stage.Item("issue.md", issue.text_of(run), "")]
    (folder / "files").mkdir()
    for item in items:
        (folder / "files" / item.name).write_text(item.text, encoding="utf-8")
    notes = "".join(f"{item.name}\t{item.note}\n" for item in items)
    (folder / "notes").write_text(notes, encoding="utf-8")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def pack(folder: Path, archive: Path) -> None:
    """A .tar.gz of the folder's files, without the names of their owners."""
    partial = archive.with_name(f"{archive.name}.partial")
    with tarfile.open(partial, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, f"{ROOM}/{path.name}", filter=_anonymous)
    partial.replace(archive)


def main(argv: list[str]) -> int:
    """0, or 1 with a line where something cannot be read or written."""
    command, source, target = argv[0], Path(argv[1]), Path(argv[2])
    try:
        (lay_out if command == "stage" else pack)(source, target)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        print(f"--bundle: {source}: {what}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

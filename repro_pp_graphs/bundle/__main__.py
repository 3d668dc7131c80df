"""python -m repro_pp_graphs.bundle stage RUN FOLDER | pack FOLDER ARCHIVE (used by bundle.sh)."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

from repro_pp_graphs.bundle import issue, leaves, stage
from repro_pp_graphs.files import BadFile

ROOM = "issue_bundle"  # the folder that the archive unpacks to


def lay_out(run: Path, folder: Path) -> None:
    """Write the bundle's files, not yet masked, and the notes on them: a line `name TAB note`.

    JSON goes to folder/json, and as lines to folder/files: masked as text it would break.
    """
    items = [*stage.items(run), stage.Item("issue.md", issue.text_of(run), "")]
    for part in ("files", "json"):
        (folder / part).mkdir()
    for item in items:
        text = item.text
        if item.name.endswith(".json") and (value := _parsed(text)) is not None:
            (folder / "json" / item.name).write_text(text, encoding="utf-8")
            text = leaves.lines(value)
        (folder / "files" / item.name).write_text(text, encoding="utf-8")
    notes = "".join(f"{item.name}\t{item.note}\n" for item in items)
    (folder / "notes").write_text(notes, encoding="utf-8")


def _parsed(text: str) -> object:
    """The JSON value; None where a run left a file that is none."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return value


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def pack(folder: Path, archive: Path) -> None:
    """A .tar.gz of folder/masked, its JSON put together again, without the owners' names."""
    for path in (folder / "json").iterdir():
        masked = folder / "masked" / path.name
        texts = masked.read_text(encoding="utf-8").split("\n")
        value = leaves.filled(json.loads(path.read_text(encoding="utf-8")), iter(texts))
        masked.write_text(stage.dumps(value) + "\n", encoding="utf-8")
    partial = archive.with_name(f"{archive.name}.partial")
    with tarfile.open(partial, "w:gz") as tar:
        for path in sorted((folder / "masked").iterdir()):
            tar.add(path, f"{ROOM}/{path.name}", filter=_anonymous)
    partial.replace(archive)


def main(argv: list[str]) -> int:
    """0, or 1 with a line where something cannot be read or written."""
    command, source, target = argv[0], Path(argv[1]), Path(argv[2])
    try:
        (lay_out if command == "stage" else pack)(source, target)
    except BadFile as error:
        print(f"--bundle: {error}: name a folder with a whole run", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        print(f"--bundle: {source}: {what}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

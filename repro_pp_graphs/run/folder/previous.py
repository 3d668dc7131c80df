"""Results of another run, or of another try: moved to previous/, whole, never overwritten.

Where logs/, trace/ or previous/ is on a disk of its own (a link, a mount) nothing is copied
across: what lay there stays on that disk, in its folder .previous/, and previous/ has a link to
it.
"""

from __future__ import annotations

import contextlib
import errno
import re
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from repro_pp_graphs.files import RESERVE, BadFile, read_object

STAMP = "%Y-%m-%d %H:%M:%S"
PARTS = ("logs", "trace")
NEARBY = ".previous"
# not a run's: git's, ours, and that of a disk's root
LEFT_ALONE = (".gitkeep", RESERVE, NEARBY, "lost+found")


def everything(out: Path) -> list[str]:
    """All that lies in out/logs and out/trace, relative to `out`."""
    return [
        f"{part}/{path.name}"
        for part in PARTS
        if (out / part).is_dir()
        for path in sorted((out / part).iterdir())
        if path.name not in LEFT_ALONE
    ]


def existing(out: Path, names: Iterable[str]) -> list[str]:
    """Those of the names, relative to `out`, that there are; a link without its target too."""
    paths = ((name.rstrip("/"), out / name.rstrip("/")) for name in names)
    return [name for name, path in paths if path.exists() or path.is_symlink()]


def clear(out: Path, names: Iterable[str], whose: str = "launch") -> str:
    """Move files of other origin aside; a line that names them, or an empty one."""
    there = existing(out, names)
    if not there:
        return ""
    kept = move_aside(out, there, "other")
    more = f" and {len(there) - 3} more" if len(there) > 3 else ""
    return f"not of this {whose}: {', '.join(there[:3])}{more}; moved to {kept}"


def move_aside(out: Path, names: Iterable[str] | None = None, why: str = "resumed") -> Path:
    """Move results to a new folder out/previous/<when that run began>, and return that folder.

    `names` are relative to `out`; they go to a folder of their own, which says `why`: tries that
    --resume repeats, or files of other origin. By default all that lies in out/logs and out/trace.
    All of it moves or nothing: what has moved comes back where one cannot be moved. The plan goes
    last, so that a move that kill -9 stopped is gone on with by the next run. Raises OSError.
    """
    kept = out / "previous" / _folder_name(began(out / "logs" / "run.json"))
    if names is None:
        names = everything(out)
    else:
        names = existing(out, names)
        kept = kept.with_name(f"{kept.name}_{why}_{_folder_name(_now())}")
    names = sorted(names, key=lambda name: name == "logs/run.json")
    with _no_signals():
        kept = _new_folder(kept)
        moved: list[tuple[Path, Path]] = []
        rooms: dict[str, Path] = {}
        try:
            for name in names:
                _move(out, name.rstrip("/"), kept, rooms, moved)
        except OSError:
            for source, target in reversed(moved):
                with contextlib.suppress(OSError):
                    target.rename(source)
            for part in PARTS:
                if (kept / part).is_symlink():
                    (kept / part).unlink()
            _remove_empty(kept, *rooms.values())
            raise
    return kept


def _move(
    out: Path, name: str, kept: Path, rooms: dict[str, Path], moved: list[tuple[Path, Path]]
) -> None:
    """Rename one file or folder into `kept`, or beside its own folder where that is elsewhere."""
    part, _, rest = name.partition("/")
    source = out / name
    room = rooms.get(part, kept / part)
    try:
        _rename(source, room / rest)
    except OSError as error:
        if error.errno != errno.EXDEV or part in rooms:
            raise
        _remove_empty((room / rest).parent, room)
        room = _new_folder((out / part).resolve() / NEARBY / kept.name)
        (kept / part).symlink_to(room)
        rooms[part] = room  # known before it can fail, so that it is removed again
        _rename(source, room / rest)
    rooms[part] = room
    moved.append((source, room / rest))


def _rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and not source.readlink().is_absolute():
        # it would point elsewhere from there
        target.symlink_to(source.parent.resolve() / source.readlink())
        source.unlink()
        return
    source.rename(target)


def _new_folder(wanted: Path) -> Path:
    """Make a folder of that name; where it is taken, as after a clock was set back, <name>_2."""
    number, path = 1, wanted
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.name}_{number}")
        else:
            return path


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        for path in sorted(folder.rglob("*"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _no_signals() -> Iterator[None]:
    """Renaming takes milliseconds: a signal acts after it."""
    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def began(run_json: Path) -> str:
    """When a run was first started; where it does not say, when its plan was written, or now."""
    said = ""
    with contextlib.suppress(OSError, BadFile):
        said = str(read_object(run_json).get("began", ""))
    if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", said):
        return said
    with contextlib.suppress(OSError):
        return time.strftime(STAMP, time.localtime(run_json.stat().st_mtime))
    return _now()


def command(run_json: Path) -> list[str]:
    """How a run was called that --resume goes on with. Empty where it does not say, or where it was
    of a server that was running, which is not gone on with."""
    try:
        found = read_object(run_json)
    except (OSError, BadFile):
        return []
    words = found.get("command")
    if found.get("attached") or not isinstance(words, list):
        return []
    return words if all(isinstance(word, str) for word in words) else []


def is_complete(run_json: Path) -> bool:
    """Whether a run's summary says that all of its launches were measured."""
    try:
        return read_object(run_json.with_name("summary.json")).get("complete") is True
    except (OSError, BadFile):
        return False


def _now() -> str:
    return time.strftime(STAMP)


def _folder_name(stamp: str) -> str:
    return re.sub("[-:]", "", stamp).replace(" ", "_")

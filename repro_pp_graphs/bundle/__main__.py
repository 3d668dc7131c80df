"""Pack what a run left, masked, as one archive for an issue; used by collect_env.sh --bundle."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tarfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from repro_pp_graphs.bundle import contents, hosts, issue, marks
from repro_pp_graphs.bundle.marks import shown_in_markdown
from repro_pp_graphs.bundle.masked_page import masked_page
from repro_pp_graphs.environment import masking, secret_words
from repro_pp_graphs.environment.own_words import as_word
from repro_pp_graphs.files import BadFile

ROOM = "issue_bundle"  # the folder that the archive unpacks to
_NAME_BEFORE = re.compile(
    r"[A-Za-z0-9_.-]{1,60}"
    r"(?=(?:[\"'\\]|%22)*\s*(?:[:=,]|%3[AD])?[\[\s]*[bB]?(?:[\"'\\]|%22)*$)"
)
_COMMANDS = "command lines of other sglang processes"
_NOT_MASKED = {
    _COMMANDS: re.compile(r"^process [0-9]+ .*", re.MULTILINE),
    "IP addresses (or versions of four numbers)": re.compile(
        r"(?<![0-9.])(?!127\.|0\.0\.0\.0)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9.])", re.ASCII
    ),
    "hosts in web addresses": re.compile(
        r"https?://(?!127\.|localhost|github\.com|huggingface\.co|<)(?:<masked>@)?([A-Za-z][^\s/:\"'<>)]*)"
    ),
}
_HOST = re.compile(r"[\w.-]{1,80}", re.ASCII)
_MOST_NAMES = 8  # of a file
_MOST_SHOWN = 3  # of files, and of what is to be looked at in them
FORM = "https://github.com/sgl-project/sglang/issues/new/choose"


def _parsed(item: contents.Item) -> object:
    """The JSON value of an item; None where it is no JSON, or a run left a broken one."""
    try:
        value: object = json.loads(item.text) if item.name.endswith(".json") else None
    except ValueError:
        return None
    return value


def _names_secrets(name: str) -> bool:
    """Whether a file holds the arguments and environments of servers."""
    return name == "run.json" or name.endswith(("_command.sh", "_launch.json"))


def masked(items: list[contents.Item], masker: masking.Masker) -> list[contents.Item]:
    """The files masked, JSON still JSON: also what the servers' arguments and environments call a
    secret, wherever it turns up."""
    values = [_parsed(item) for item in items]
    for item, value in zip(items, values, strict=True):
        if _names_secrets(item.name):
            masker.learn_from(item.text) if value is None else masker.learn_from_json(value)
    for item, value in zip(items, values, strict=True):
        masker.learn_hosts(hosts.named(item.name, value), logged=item.text)
    out = []
    for item, value in zip(items, values, strict=True):
        if value is not None:
            record = hosts.changed(item.name, value, masker.host)
            text = f"{contents.dumps(masker.json(record))}\n"
        elif item.name.endswith(".html"):
            text = masked_page(item.text, masker)
        elif item.name.endswith(".md"):
            printed = item.name == "issue.md"  # on a terminal, too
            text = (masker.text if printed else masker.string)(item.text)
            text = shown_in_markdown(text)
        else:
            text = masker.text(item.text)
        out.append(item._replace(text=text))
    return out


def pack(items: list[contents.Item], archive: Path) -> None:
    """A .tar.gz of the files, without the owners' names."""
    partial = archive.with_name(f"{archive.name}.partial")
    with tarfile.open(partial, "w:gz") as tar:
        for item in sorted(items):
            data = item.text.encode()
            member = tarfile.TarInfo(f"{ROOM}/{item.name}")
            member.size, member.mtime = len(data), int(time.time())
            tar.addfile(member, io.BytesIO(data))
    partial.replace(archive)


def masked_after(text: str) -> list[str]:
    """The word that stands before each mask, most often what names the secret: `--api-key`, of
    several alike `--api-key (3 x)`."""
    found: Counter[str] = Counter()
    for mask in re.finditer(re.escape(secret_words.MASK), text):
        name = _NAME_BEFORE.search(text[max(0, mask.start() - 80) : mask.start()])
        found[name[0] if name else "no word"] += 1
    names = [name if count == 1 else f"{name} ({count} x)" for name, count in found.items()]
    more = len(names) - _MOST_NAMES
    return names if more <= 0 else [*names[:_MOST_NAMES], f"{more} more"]


def listing(items: list[contents.Item]) -> Iterator[str]:
    """A line a file with its size, how many secrets are masked in it and how many names hidden,
    then what was cut of it and after which words it was masked."""
    yield f"{'bytes':>9}  {'masked':>6}  {'hidden':>6}  file"
    total, hidden = 0, Counter[str]()
    for item in sorted(items):
        count, names = marks.secrets(item), marks.names(item)
        total += count
        hidden += names
        yield f"{len(item.text.encode()):9}  {count:6}  {names.total():6}  {item.name}"
        after = f"masked after: {', '.join(masked_after(item.text))}" if count else ""
        for text in filter(None, (item.note, after)):
            yield from (f"{'':28} {line}" for line in textwrap.wrap(text, 50))
    yield f"{total} secrets are masked in all ({secret_words.MASK} stands where each was)"
    each = ", ".join(f"{name} {count} x" for name, count in sorted(hidden.items()))
    text = f"{hidden.total()} names and addresses are hidden in all{f': {each}' if each else ''}"
    yield from textwrap.wrap(text, 78, subsequent_indent="  ")


def to_look_at(items: list[contents.Item], own_words: list[str] | None = None) -> Iterator[str]:
    """What no mask is for and a person may not want to send, with its files: command lines of
    other sglang processes, addresses, names of hosts in web addresses; names that stay since they
    are `own_words`; marks where hardly a name can have stood."""
    for what, pattern in _NOT_MASKED.items():
        found = {item.name: pattern.findall(item.text) for item in sorted(items)}
        files = [name for name, its in found.items() if its]
        if files:
            every = (text for its in found.values() for text in its)
            # a command line is long, and is not repeated
            each = list(dict.fromkeys(every if what == _COMMANDS else map(_shown, every)))
            named = "" if what == _COMMANDS else f" ({_some(each)})"
            text = f"look at: {what}: {len(each)}{named} in {_some(files)}"
            yield from textwrap.wrap(text, 78, subsequent_indent="  ", break_on_hyphens=False)
    for text in (*_kept(items, own_words or []), *marks.doubtful(items)):
        yield from textwrap.wrap(f"look at: {text}", 78, subsequent_indent="  ")


def _shown(text: str) -> str:
    """A host or an address as it is named: without what a log may have behind it."""
    name = _HOST.match(text)
    return name[0].rstrip(".") if name else text


def _some(names: list[str]) -> str:
    """The first ones, and how many more."""
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return f"{', '.join(names[:_MOST_SHOWN])}{more}"


def _kept(items: list[contents.Item], own_words: list[str]) -> Iterator[str]:
    there = [name for name in own_words if any(as_word(name).search(item.text) for item in items)]
    if there:
        yield (
            f"{', '.join(there)}: the name of a user or host, and a common word as well: hidden "
            "where it stands as a name (in paths, fields, logs), left elsewhere; search the files "
            "for it if nobody may see it at all (docs/collect_env.md)"
        )


def lines(
    items: list[contents.Item], archive: Path, text: Path, own_words: list[str]
) -> Iterator[str]:
    """What to print once the archive is written."""
    yield text.read_text(encoding="utf-8")
    yield "-------- the issue text ends here; below is what the archive holds --------"
    yield ""
    yield from listing(items)
    yield from to_look_at(items, own_words)
    yield ""
    yield "Nothing has been sent. Look through it first: masking knows the names and shapes"
    yield "of secrets, not yours. Then attach the archive to the issue:"
    yield f"  {'archive':8} {archive} ({archive.stat().st_size} bytes)"
    yield f"  {'text':8} {text}"
    yield f"  {'form':8} {FORM}"


def main(argv: list[str]) -> int:
    """0, or 1 with a line where something cannot be read or written."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs.bundle", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--no-redact", dest="people", action="store_false")
    options = parser.parse_args(argv)
    run: Path = options.run
    archive, text = run / "logs" / "issue_bundle.tar.gz", run / "logs" / "issue.md"
    try:
        found = [*contents.items(run), contents.Item("issue.md", issue.text_of(run), "")]
        masker = masking.of_this_process(options.people)
        items = masked(found, masker)
        pack(items, archive)
        text.write_text(items[-1].text, encoding="utf-8")
        print("\n".join(lines(items, archive, text, masker.own_words())))
    except BadFile as error:
        print(f"--bundle: {error}: name a folder with a whole run", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        print(f"--bundle: {run}: {what}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

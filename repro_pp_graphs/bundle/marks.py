"""What stands in a bundle where something was masked or hidden: `<masked>`, `<host 2>`, ..."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from repro_pp_graphs.bundle.contents import Item
from repro_pp_graphs.environment.secret_words import MASK

_NAME = re.compile(r"<(?:host(?: [0-9]+)?|user|email|address)>")
_MARK = re.compile(r"<(masked|host(?: [0-9]+)?|user|email|address)>")
_KEY = re.compile(r'^\s*"([^"\\]*<(?:host|user)[^"\\]*)": ', re.MULTILINE)
_CODE_SPAN = re.compile(r"(`[^`\n]*`)")
_FENCE = "```"
# Records of times alone: no field of them names a person or a host.
_OF_TIMES = ("_timeline.json", "_pp_clock.json", "_pp_clock.txt")
OFTEN = 100  # marks of one name in the files that are no logs


def secrets(item: Item) -> int:
    """How many secrets are masked in a file."""
    return _spelled(item).count(MASK)


def names(item: Item) -> Counter[str]:
    """How often each name or address is hidden in a file, by its mark."""
    return Counter(_NAME.findall(_spelled(item)))


def _spelled(item: Item) -> str:
    """Its text; of a page with the marks as they are shown."""
    if not item.name.endswith(".html"):
        return item.text
    pairs = (("\\u003c", "<"), ("\\u003e", ">"), ("&lt;", "<"), ("&gt;", ">"))
    text = item.text
    for spelling, shown in pairs:
        text = text.replace(spelling, shown)
    return text


def doubtful(items: list[Item]) -> Iterator[str]:
    """A sentence for each host or user that was hidden where hardly one can have stood, or very
    often: its name may be a word of the texts."""
    places: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for item in sorted(items):
        found = names(item)
        counts += Counter() if item.name.endswith(".log") else found
        keys = "".join(_KEY.findall(item.text)) if item.name.endswith(".json") else ""
        for name in found:
            if item.name.endswith(_OF_TIMES) or name in keys:
                places.setdefault(name, item.name)
    for name in sorted({*places, *(name for name, count in counts.items() if count > OFTEN)}):
        if name.startswith(("<host", "<user")):
            where = f", also in {places[name]}, where no name belongs" if name in places else ""
            yield (
                f"{name} is hidden {counts[name]} times in files that are no logs{where}: it may "
                "be a word of them (--no-redact shows it)"
            )


def shown_in_html(text: str) -> str:
    """Text of a page in which a mark is no tag, which nobody would see."""
    return _MARK.sub(r"&lt;\1&gt;", text)


def shown_in_markdown(text: str) -> str:
    """Markdown in which a mark is no tag: escaped, but in code, which shows it as it is."""
    out, in_code = [], False
    for line in text.split("\n"):
        fence = line.lstrip().startswith(_FENCE)
        in_code ^= fence
        out.append(line if in_code or fence else _escaped(line))
    return "\n".join(out)


def _escaped(line: str) -> str:
    parts = _CODE_SPAN.split(line)
    return "".join(part if part.startswith("`") else _MARK.sub(r"\\<\1>", part) for part in parts)

"""What of its arguments a server refused, by its last message."""

from __future__ import annotations

import re
from collections.abc import Sequence

from repro_pp_graphs.server.log.diagnosis import Diagnosis

# the words of Python, and of sglang, for a value that is none of those there are
_REFUSES = re.compile(
    r"^(?:\S*\.)?(?:(?:Value|Key|Type|Attribute|Assertion|NotImplemented)Error|"
    r"\w*ValidationError)\b"
)
_UNKNOWN = "unknown argument"  # by argparse, a rule of server/log/causes.py
_OPTION = re.compile(r"--[a-z][\w-]*")
LEAST_LETTERS = 3  # of a value that is recognised where a message quotes it


def of_death(found: Diagnosis, given: Sequence[str]) -> str:
    """The argument that a server died of as it started, of those `given`, each as one text with
    its values; empty where its last message names none."""
    if found.line is None:
        return ""
    text = found.line.text
    if found.cause == _UNKNOWN:
        named = set(_OPTION.findall(text))
        return next((one for one in given if one.split(" ")[0] in named), "")
    if found.known or not _REFUSES.match(text):
        return ""
    return next((one for one in given if _quotes(text, one)), "")


def _quotes(text: str, argument: str) -> bool:
    """Whether a message names the value of an argument: in quotes, or behind a colon. Numbers and
    paths stand in messages for other reasons too."""
    value = re.split("[ =]", argument, maxsplit=1)[1:]
    if not value or len(value[0]) < LEAST_LETTERS or value[0].startswith("/"):
        return False
    if re.fullmatch(r"[\d.]+", value[0]):
        return False
    quoted = rf"(?:: |['\"`]){re.escape(value[0])}(?![\w/-])"
    return bool(re.search(quoted, text, re.IGNORECASE))


def named(found: Diagnosis, argument: str, case: str) -> Diagnosis:
    """The same death, with what to mend."""
    where = f"mend it in server_args_base.txt, or in server_args_{case}.txt"
    remedy = f"{where}, and start over: --resume would refuse other arguments"
    return found._replace(cause=f"the server refuses {argument}", remedy=remedy)

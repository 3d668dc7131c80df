"""An argument, or a variable, that a server refused as it started."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_pp_graphs import launch_record
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.run_record import Launch, Plan

if TYPE_CHECKING:
    from repro_pp_graphs.server.log.diagnosis import Diagnosis

# the words of Python, and of sglang, for a value that is none of those there are
_REFUSES = re.compile(
    r"^(?:\S*\.)?(?:(?:Value|Key|Type|Attribute|Assertion|NotImplemented)Error|"
    r"\w*ValidationError)\b"
)
_UNKNOWN = "unknown argument"  # by argparse, a rule of server/log/causes.py
_OPTION = re.compile(r"--[a-z][\w-]*")
LEAST_LETTERS = 3  # of a value that is recognised where a message quotes it


def of_death(found: Diagnosis, launch: Launch) -> str:
    """The argument that a server died of as it started, by its last message; empty where that
    names none."""
    if found.line is None:
        return ""
    given, text = launch.arguments, found.line.text
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


def diagnosis(found: Diagnosis, argument: str, launch: Launch) -> Diagnosis:
    """The same death, with what to mend."""
    where = f"mend it in server_args_base.txt, or in server_args_{launch.case}.txt"
    remedy = f"{where}, and start over: --resume would refuse other arguments"
    return replace(found, cause=f"the server refuses {argument}", remedy=remedy)


def refused(logs: Path, plan: Plan) -> dict[str, str]:
    """The arguments that servers refused since the run was last called, each with the launch whose
    server did so first."""
    found: dict[str, str] = {}
    for launch in plan.launches:
        try:
            known = launch_record.load(logs, launch.label)
        except (OSError, BadFile):
            continue
        ours = known and (known.run_id, known.session) == (plan.run_id, plan.session)
        if known and ours and known.bad_argument:
            found.setdefault(known.bad_argument, launch.label)
    return found


def obstacle(logs: Path, plan: Plan, launch: Launch) -> str:
    """Why a launch would die as another one did, with the next step; empty where none has."""
    for argument, label in refused(logs, plan).items():
        if argument in launch.arguments and label != launch.label:
            return (
                f"the server of {label} refused {argument}, which this case has too: mend it in "
                "server_args_*.txt, and start over without --resume"
            )
    return ""

"""A server_args_<name>.txt: one server argument a line, NAME=value lines, comments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from repro_pp_graphs.server import shim_names

MOST_BYTES = 256 << 10  # of a file
_LABEL = re.compile(r"#\s*label:\s*(.*?)\s*$")
_LABEL_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# files of a run, or of two launches, have these names
_RESERVED = re.compile(r"env|env_after|run|summary|report|merge|readme|.*_vs_.*", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")  # all but tab
_COMMENT = re.compile(r"""(?:\\.|'[^']*'|"(?:[^"\\]|\\.)*"|[^'"\\])*?(?<!\S)(?=\#)""")
_ENV_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)

# spellings of one flag, the canonical one first
_SPELLINGS = (
    ("--model-path", "--model"),
    ("--pp-size", "--pipeline-parallel-size"),
    ("--tp-size", "--tensor-parallel-size", "--tp"),
    ("--dp-size", "--data-parallel-size"),
    ("--pp-max-micro-batch-size", "--max-micro-batch-size"),
)
_CANONICAL = {spelling: names[0] for names in _SPELLINGS for spelling in names}


class ArgFileError(ValueError):
    """A line that cannot be used; the message names file, line and remedy."""


@dataclass
class ServerArgs:
    """Server arguments by flag, in order; a later one replaces an earlier one of the same name."""

    flags: dict[str, list[str]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    release: str | None = None  # of requirements/releases
    label: str | None = None
    places: dict[str, str] = field(default_factory=dict, compare=False)  # file:line of each flag

    def set(self, flag: str, *values: str, place: str = "") -> None:
        """Set a flag (any spelling) to its values; none for a switch. `place`: file:line."""
        name = _CANONICAL.get(flag, flag)
        self.flags[name] = list(values)
        self.places[name] = place

    def get(self, flag: str, default: str = "") -> str:
        """The flag's first value, `default` where it is absent."""
        values = self.flags.get(_CANONICAL.get(flag, flag))
        return values[0] if values else default

    def get_int(self, flag: str, default: int) -> int:
        """The flag's value as a number; raises ArgFileError where it is none, or has none."""
        if self.flags.get(_CANONICAL.get(flag, flag)) == []:
            raise ArgFileError(f"{flag}: give it a number in server_args_*.txt")
        text = self.get(flag, str(default))
        if not re.fullmatch("-?[0-9]{1,18}", text):
            shown = text if len(text) <= 40 else f"{text[:40]}..."
            fault = "not a whole number" + " of 18 digits or fewer" * text.strip("-").isdigit()
            raise ArgFileError(f"{flag} {shown}: {fault}; mend it in server_args_*.txt")
        return int(text)

    def over(self, base: ServerArgs) -> ServerArgs:
        """These arguments laid over `base`: same-named flags and variables replace its own.

        Shims alone add up: those of `base` make a server run at all.
        """
        env = {**base.env, **self.env}
        names = [*shim_names.names_in(base.env), *shim_names.names_in(self.env)]
        if names:
            env[shim_names.ENV_NAME] = ",".join(dict.fromkeys(names))
        return ServerArgs(
            flags={**base.flags, **self.flags},
            env=env,
            python=self.python or (None if self.release else base.python),
            release=self.release or (None if self.python else base.release),
            label=self.label or base.label,
            places={**base.places, **self.places},
        )

    def argv(self) -> list[str]:
        """The command-line words."""
        return [word for flag, values in self.flags.items() for word in (flag, *values)]


def parse(text: str, where: str) -> ServerArgs:
    """Read an argument file's text; `where` names it in errors. Raises ArgFileError."""
    args = ServerArgs()
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        place = f"{where}:{number}"
        if _CONTROL.search(line):
            raise ArgFileError(f"{place}: it holds a control character: write the line anew")
        label = _LABEL.match(line.strip())
        if label:
            args.label = _checked_label(label[1], place)
        elif words := _words(line, place):
            _add_line(args, words, place)
    return args


def _checked_label(label: str, place: str) -> str:
    if not _LABEL_SHAPE.fullmatch(label):
        shown = f"'{label}'" if len(label) <= 64 else f"of {len(label)} characters"
        raise ArgFileError(f"{place}: label {shown}: use up to 64 letters, digits, . _ -")
    if _RESERVED.fullmatch(label):
        raise ArgFileError(f"{place}: label '{label}': files of a run have that name; take another")
    return label


@lru_cache(maxsize=512)  # the files are read again with all options that a plan is tried with
def _words(line: str, place: str) -> tuple[str, ...]:
    """A line's words as a shell splits them: a # begins a comment where a word would begin."""
    comment = _COMMENT.match(line)
    try:
        return tuple(shlex.split(line[: comment.end()] if comment else line))
    except ValueError as error:
        if "quot" in str(error):
            raise ArgFileError(f"{place}: close the quote") from None
        raise ArgFileError(
            f"{place}: it ends with a backslash: an argument and its values stand on one line"
        ) from None


@lru_cache(maxsize=512)
def _refuse_secret(name: str, value: str, place: str) -> None:
    """What a file holds is stored with the run, and sglang writes its arguments to its log."""
    from repro_pp_graphs.environment import masking, named_secrets  # noqa: PLC0415 - 20 ms, for plans only

    if not (named_secrets.is_secret(name, value) or masking.holds_secret(value)):
        return
    if name.startswith("--"):
        raise ArgFileError(
            f"{place}: {name} holds a secret, which would end up in the server's log; leave it "
            "out, the server listens on 127.0.0.1 only"
        )
    raise ArgFileError(
        f"{place}: {name} holds a secret, which would be stored with the run; export it in your "
        "shell instead, the server inherits it"
    )


def _add_line(args: ServerArgs, words: Sequence[str], place: str) -> None:
    assignment = _ENV_LINE.fullmatch(words[0])
    if assignment and len(words) == 1:
        name, value = assignment[1], assignment[2]
        if name in ("PYTHON", "RELEASE"):
            if args.python or args.release:
                raise ArgFileError(f"{place}: PYTHON and RELEASE name an sglang once: leave one")
            args.python, args.release = (value, None) if name == "PYTHON" else (None, value)
        else:
            _refuse_secret(name, value, place)
            args.env[name] = value
        return
    if not words[0].startswith("--"):
        raise ArgFileError(
            f"{place}: {_shown(words[0])} is neither '--argument [value]' nor NAME=value; "
            "put one argument on a line"
        )
    flag, equals, value = words[0].partition("=")
    values = [*([value] if equals else []), *words[1:]]
    if any(word.startswith("--") for word in values):
        raise ArgFileError(f"{place}: several arguments on one line; put each on its own")
    for word in values:
        _refuse_secret(flag, word, place)
    args.set(flag, *values, place=place)


def _shown(word: str) -> str:
    """A word that is in the wrong place, which may be a secret: only the beginning of a name."""
    name = re.match(r"[A-Za-z_-]{1,20}(?=[=:]|$)", word)
    return f"'{name[0]}'" if name else "what stands there"


def load(path: Path) -> ServerArgs:
    """Read one argument file. Raises ArgFileError, also where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ArgFileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ArgFileError(f"{path}:{line}: cannot be read: it is no UTF-8") from None
    if len(data) > MOST_BYTES:
        raise ArgFileError(f"{path}: more than {MOST_BYTES >> 10} KiB: no list of arguments")
    return parse(text, path.name)

"""A server_args_<name>.txt: one server argument a line, NAME=value lines, comments."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from repro_pp_graphs.server import shims

_LABEL = re.compile(r"#\s*label:\s*(.*?)\s*$")
_LABEL_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ENV_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
# sglang writes its arguments to the log and serves them at /server_info
_SECRET_FLAGS = ("--api-key", "--admin-api-key", "--ssl-keyfile-password")

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

    def set(self, flag: str, *values: str) -> None:
        """Set a flag (any spelling) to its values; none for a switch."""
        self.flags[_CANONICAL.get(flag, flag)] = list(values)

    def get(self, flag: str, default: str = "") -> str:
        """The flag's first value, `default` where it is absent."""
        values = self.flags.get(_CANONICAL.get(flag, flag))
        return values[0] if values else default

    def get_int(self, flag: str, default: int) -> int:
        """The flag's value as a number; raises ArgFileError where it is none, or has none."""
        if self.flags.get(_CANONICAL.get(flag, flag)) == []:
            raise ArgFileError(f"{flag}: give it a number in server_args_*.txt")
        text = self.get(flag, str(default))
        if not re.fullmatch("-?[0-9]+", text):
            raise ArgFileError(f"{flag} {text}: not a whole number; mend it in server_args_*.txt")
        return int(text)

    def over(self, base: ServerArgs) -> ServerArgs:
        """These arguments laid over `base`: same-named flags and variables replace its own.

        Shims alone add up: those of `base` make a server run at all.
        """
        env = {**base.env, **self.env}
        names = [*shims.names_in(base.env), *shims.names_in(self.env)]
        if names:
            env[shims.ENV_NAME] = ",".join(dict.fromkeys(names))
        return ServerArgs(
            flags={**base.flags, **self.flags},
            env=env,
            python=self.python or (None if self.release else base.python),
            release=self.release or (None if self.python else base.release),
            label=self.label or base.label,
        )

    def argv(self) -> list[str]:
        """The command-line words."""
        return [word for flag, values in self.flags.items() for word in (flag, *values)]


def parse(text: str, where: str) -> ServerArgs:
    """Read an argument file's text; `where` names it in errors. Raises ArgFileError."""
    args = ServerArgs()
    for number, line in enumerate(text.splitlines(), start=1):
        place = f"{where}:{number}"
        label = _LABEL.match(line.strip())
        if label:
            if not _LABEL_SHAPE.fullmatch(label[1]):
                raise ArgFileError(f"{place}: label '{label[1]}': use letters, digits, . _ -")
            args.label = label[1]
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ArgFileError(f"{place}: {error}: close the quote") from None
        if words:
            _add_line(args, words, place)
    return args


def _add_line(args: ServerArgs, words: list[str], place: str) -> None:
    assignment = _ENV_LINE.fullmatch(words[0])
    if assignment and len(words) == 1:
        from repro_pp_graphs.environment import masking  # noqa: PLC0415 - 20 ms, for plans only

        name, value = assignment[1], assignment[2]
        if name in ("PYTHON", "RELEASE"):
            if args.python or args.release:
                raise ArgFileError(f"{place}: PYTHON and RELEASE name an sglang once: leave one")
            args.python, args.release = (value, None) if name == "PYTHON" else (None, value)
        elif masking.is_secret(name, value):
            raise ArgFileError(
                f"{place}: {name} would be stored with the run; export it in your shell instead, "
                "the server inherits it"
            )
        else:
            args.env[name] = value
        return
    if not words[0].startswith("--"):
        raise ArgFileError(
            f"{place}: '{words[0]}' is neither '--argument [value]' nor NAME=value; "
            "put one argument on a line"
        )
    flag, equals, value = words[0].partition("=")
    values = ([value] if equals else []) + words[1:]
    if any(word.startswith("--") for word in values):
        raise ArgFileError(f"{place}: several arguments on one line; put each on its own")
    if flag in _SECRET_FLAGS:
        raise ArgFileError(
            f"{place}: {flag} would end up in the server's log; leave it out, "
            "the server listens on 127.0.0.1 only"
        )
    args.set(flag, *values)


def load(path: Path) -> ServerArgs:
    """Read one argument file. Raises ArgFileError, also where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgFileError(f"{path}: cannot be read ({error})") from None
    return parse(text, path.name)

"""What names people: homes, users, hosts, mail addresses and public addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from repro_pp_graphs.environment import spans

# fmt: off
_ROLES = frozenset((
    "root", "nobody", "user", "admin", "test", "ubuntu", "debian", "ec2-user", "azureuser",
    "runner", "jovyan", "docker", "cuda", "nvidia", "sglang", "vllm", "torch", "python",
    "localhost",
))
# fmt: on
_HOME = re.compile(r"(/(?:home|Users)/)[^/\s:<]+", re.ASCII)
_DOMAIN = re.compile(r"@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_LOCAL_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-")
_ADDRESS = re.compile(
    r"[0-9](?<![0-9.].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?=:[0-9]{2,5}|[\]/])", re.DOTALL
)
# Addresses that no other network can reach distinguish nodes and betray nobody.
_PRIVATE = re.compile(
    r"(0|10|127|169\.254|192\.168|172\.(1[6-9]|2[0-9]|3[01])"
    r"|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]))\."
)
_NCCL_HOST = re.compile(r"^([A-Za-z0-9.-]{4,255}):[0-9]+:[0-9]+ \[[0-9]+\] NCCL ", re.MULTILINE)


def _emails(text: str) -> Iterator[tuple[int, int, str]]:
    done = 0
    for match in _DOMAIN.finditer(text):
        start = match.start()
        while start > done and text[start - 1] in _LOCAL_CHARS:
            start -= 1
        if start < match.start() and not text.startswith("git@", start):
            yield start, match.end(), "<email>"
        done = match.end()


def _mask_address(match: re.Match[str]) -> str:
    return match[0] if _PRIVATE.match(match[0]) else "<address>"


@lru_cache(maxsize=512)
def _as_word(name: str) -> re.Pattern[str]:
    word = re.escape(name)
    return re.compile(f"{word}(?<![A-Za-z0-9_]{word})(?![A-Za-z0-9_])")


class People:
    """The home folder, users and hosts that are hidden wherever they turn up."""

    def __init__(self, environ: Mapping[str, str], user: str = "", host: str = "") -> None:
        self.home = environ.get("HOME", "").rstrip("/")
        users = [environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")]
        # the name of a role or a product names no person
        self.users = {name for name in [*users, user] if len(name) > 2 and name not in _ROLES}
        hosts = (environ.get("HOSTNAME", ""), host)
        self.hosts = {name for name in hosts if len(name) > 4 and name not in _ROLES}

    def hide(self, text: str) -> str:
        """The text without them, mail addresses and public addresses; hosts of NCCL's log lines
        are learnt from it."""
        if self.home:
            text = re.sub(f"{re.escape(self.home)}(?![A-Za-z0-9_.-])", "~", text)
        text = _HOME.sub(r"\1<user>", text)
        if "@" in text:
            text = spans.replaced(text, _emails(text))
        text = _ADDRESS.sub(_mask_address, text)
        if "] NCCL " in text:
            self.hosts.update(_NCCL_HOST.findall(text))
        for names, instead in ((self.users, "<user>"), (self.hosts, "<host>")):
            for name in sorted(names, key=len, reverse=True):
                text = _as_word(name).sub(instead, text) if name in text else text
        return text

"""What names people: homes, users, hosts, mail addresses and public addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from repro_pp_graphs.environment import spans
from repro_pp_graphs.environment.own_words import as_word, is_own_word

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
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?", re.ASCII)
_NUMERIC = re.compile(r"[0-9.]+", re.ASCII)
NCCL = "] NCCL "  # in each of its log lines
_SHORT_HOST = 4  # characters: so short a name (vm, gpu1) is a word of other texts too
_NCCL_HOST = re.compile(r"^([A-Za-z0-9.-]{1,255})(?=:[0-9]+:[0-9]+ \[[0-9]+\] NCCL )", re.MULTILINE)


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


class People:
    """The home folder, users and hosts that are hidden wherever they turn up; but for a name that
    this project's own texts use as a word, which is hidden where a field or a path has it."""

    def __init__(self, environ: Mapping[str, str], user: str = "", host: str = "") -> None:
        self.home = environ.get("HOME", "").rstrip("/")
        users = [environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")]
        # the name of a role or a product names no person
        self.users = {name for name in [*users, user] if len(name) > 2 and name not in _ROLES}
        # what stands in place of each host's name; those of this machine are one host
        self._hosts = {
            name: "<host>"
            for name in (environ.get("HOSTNAME", ""), host)
            if name and name not in _ROLES
        }

    def learn_hosts(self, names: Iterable[str]) -> None:
        """Hide these hosts too, each as another one: `<host>`, `<host 2>`, ... An address is none:
        private ones tell nodes apart, public ones are hidden by themselves."""
        for name in names:
            known = name in self._hosts or name in _ROLES
            if not known and _HOST_NAME.fullmatch(name) and not _NUMERIC.fullmatch(name):
                number = len(set(self._hosts.values())) + 1
                self._hosts[name] = f"<host {number}>" if number > 1 else "<host>"

    def host(self, name: str) -> str:
        """The value of a field that names a host, hidden however short it is."""
        return self._hosts.get(name, name)

    def learn_hosts_of(self, text: str) -> None:
        """Learn the hosts that NCCL's log lines begin with."""
        if NCCL in text:
            self.learn_hosts(_NCCL_HOST.findall(text))

    def own_words(self) -> list[str]:
        """Users and hosts that are called like a word of this project's own texts."""
        return sorted(name for name in {*self.users, *self._hosts} if is_own_word(name))

    def hide(self, text: str) -> str:
        """The text without them, mail addresses and public addresses; hosts of NCCL's log lines
        are learnt from it."""
        if self.home and self.home in text:
            text = re.sub(f"{re.escape(self.home)}(?![A-Za-z0-9_.-])", "~", text)
        text = _HOME.sub(r"\1<user>", text)
        if "@" in text:
            text = spans.replaced(text, _emails(text))
        text = _ADDRESS.sub(_mask_address, text)
        if NCCL in text:
            self.learn_hosts_of(text)
            text = _NCCL_HOST.sub(lambda found: self.host(found[0]), text)
        hosts = {name: label for name, label in self._hosts.items() if len(name) > _SHORT_HOST}
        hidden = dict.fromkeys(self.users, "<user>") | hosts
        for name in sorted(hidden, key=len, reverse=True):  # a host's name may hold a user's
            if name in text and not is_own_word(name):
                text = as_word(name).sub(hidden[name], text)
        return text

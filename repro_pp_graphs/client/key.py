"""The server's key, from the environment: sent to the server, and nowhere else."""

from __future__ import annotations

import os

KEYS = ("SGLANG_API_KEY", "OPENAI_API_KEY")  # the first that is set
MASK = "<masked>"


def key_name(names: tuple[str, ...] = KEYS) -> str:
    """The variable that holds the server's key; empty where none is set."""
    return next((name for name in names if os.environ.get(name)), "")


def authorization(names: tuple[str, ...] = KEYS) -> dict[str, str]:
    """The header with the server's key, from the environment; empty without one."""
    name = key_name(names)
    return {"Authorization": f"Bearer {os.environ[name]}"} if name else {}


def without_key(text: str) -> str:
    """A text of the server's, which may repeat the key."""
    for name in filter(os.environ.get, KEYS):
        text = text.replace(os.environ[name], MASK)
    return text

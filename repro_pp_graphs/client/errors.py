"""Errors in the server's own words, and what stands where events should."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from .key import without_key

GZIP = b"\x1f\x8b"
ERROR_FIELD = re.compile(r"^error:(.+)", re.MULTILINE)  # llama.cpp once sent errors as such a field
TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
JSON = json.JSONDecoder(strict=False)  # control characters in a text are no reason to lose a token
OUTPUT_KEYS = {"choices", "meta_info", "usage"}
PAGE_CHARS = 4096  # of a web page: of all of it the pattern would take seconds
CHECK_PATH = "check --base-url, --backend and any proxy between"
COMPRESSED = "malformed: the server compresses its answer; use --reader threads"


def says_something(value: object) -> bool:
    """Whether any value in it, at any depth, is other than null, 0, false and empty."""
    left = [value]
    while left:  # no recursion: a server may nest as deeply as the JSON parser goes
        found = left.pop()
        if isinstance(found, dict | list):
            left += found.values() if isinstance(found, dict) else found
        elif found:
            return True
    return False


def alone(payload: object) -> object:
    """What is in a list of one: some servers put their errors into one."""
    return payload[0] if isinstance(payload, list) and len(payload) == 1 else payload


def server_message(payload: object) -> str:
    """The human part of an error body: {"error": {"message": …}}, {"message": …}, {"detail": …}."""
    payload = alone(payload)
    while isinstance(payload, dict):
        for key in ("error", "message", "detail", "msg"):
            if isinstance(payload.get(key), str | dict | list) and says_something(payload[key]):
                payload = payload[key]
                break
        else:
            break
    try:
        return without_key(" ".join(str(payload).split()))[:300]
    except RecursionError:
        return "an error nested too deeply to be shown"


def error_words(payload: object) -> str | None:
    """The message of an error object; None if it is not one. `"error": null` is no error."""
    payload = alone(payload)
    if not isinstance(payload, dict):
        return None
    named = "error" in (payload.get("object"), payload.get("type"))
    if not named and not says_something(payload.get("error")):
        if not OUTPUT_KEYS.isdisjoint(payload):
            return None
        if not any(isinstance(payload.get(key), str) for key in ("message", "detail", "msg")):
            return None
    return server_message(payload)


def json_values(text: str) -> list[Any]:
    """The JSON document that `text` is, or those of its lines; empty where it is no JSON."""
    for parts in ([text], text.splitlines()):
        with contextlib.suppress(ValueError, RecursionError):
            return [JSON.decode(part.strip()) for part in parts if part.strip()]
    return []


def words_of(text: str) -> str:
    """The human part of an error that may be JSON, or a web page."""
    if text.lstrip("\ufeff").lstrip().startswith("<"):
        words = server_message(TAG.sub(" ", text[:PAGE_CHARS]))
        return f"a web page, {words[:80]!r}; {CHECK_PATH}"
    values = json_values(text)
    return server_message(values[0] if len(values) == 1 else text)


def run_together(text: str) -> bool:
    """Whether an event's data is that of several events, without an empty line between them."""
    return len(json_values("\n".join(text.splitlines()[:2]))) > 1


def not_understood(text: str) -> str:
    """The error for an event's data that is no JSON, or JSON of no known shape."""
    if run_together(text):
        return f"malformed: no empty line between two events: {text[:60]!r}; {CHECK_PATH}"
    return f"malformed: event not understood: {text[:60]}"


def wrong_answer(text: bytes, content_type: str, begun: bool) -> str | None:
    """The error for `text` that came where events belong; `begun`: some events came too.

    None where events came and the rules for event streams say to ignore such lines.
    """
    if text.startswith(GZIP):
        return COMPRESSED
    words = text.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    error = ERROR_FIELD.search(words)
    if error:
        return f"server: {words_of(error[1])}"
    values = json_values(words)
    said = next(filter(None, map(error_words, values)), None)
    if said is not None:
        return f"server: {said}"
    kind = "" if begun else content_type.partition(";")[0].strip() or "plain text"
    if words.startswith("<") or (not begun and "html" in content_type.lower()):
        kind, words = "HTML", TAG.sub(" ", words[:PAGE_CHARS])
    elif words.startswith("{") or (values and words.startswith("[")):
        kind = "JSON lines" if len(values) > 1 else "JSON"
    if not kind:
        return None
    did = f"sent {kind} between events" if begun else f"answered {kind}, not an event stream"
    excerpt = " ".join(words.split())[:60]
    return f"malformed: the server {did}: {excerpt!r}; {CHECK_PATH}"

"""The token count of an event without parsing its JSON, where that is certain."""

from __future__ import annotations

import re

NUMBER = re.compile(rb"\s*(\d{1,7})\b")  # below options.MOST_TOKENS
QUICK_KEYS = (b'"completion_tokens":', b'"finish_reason":')
NO_REASON = (b"null", b" null", b'""', b' ""')


def quick_count(payload: bytes, prompts: int) -> tuple[int, int] | None:
    """(index, completion tokens) of an event that ends no prompt; None: needs a JSON parser.

    A quote within a JSON string is escaped, so `"name":` in the bytes is a key and never text.
    """
    count = payload.rfind(b'"completion_tokens":')
    reason = payload.rfind(b'"finish_reason":')
    if count < 0 or reason < 0 or not payload.startswith(NO_REASON, reason + 16):
        return None
    if payload.rfind(b'"error"') >= 0:  # from the right: twice as fast
        return None
    tokens = NUMBER.match(payload, count + 20)
    if prompts == 1:
        return (0, int(tokens[1])) if tokens else None
    at = payload.rfind(b'"index":')
    index = NUMBER.match(payload, at + 8) if payload.find(b'"index":') == at >= 0 else None
    return (int(index[1]), int(tokens[1])) if tokens and index else None


def is_quick(payload: bytes, prompts: int, taken: tuple[int, int | None]) -> bool | None:
    """Whether quick_count finds in such events what the JSON parser did (`taken`).

    None if this event cannot show it.
    """
    quick = quick_count(payload, prompts)
    if quick is None or taken[1] is None:
        return None
    return quick == taken and all(payload.count(key) == 1 for key in QUICK_KEYS)

"""An event's JSON, of sglang or OpenAI's shape: its tokens go to the records of its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from .errors import error_words, says_something, server_message
from .options import MOST_TOKENS
from .record import Record

NOT_UNDERSTOOD = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
)


def take_event(
    records: list[Record], arrival_ns: int, event: dict[str, Any]
) -> tuple[int, int | None] | None:
    """Returns (index, cumulative tokens) of an event with output of one prompt.

    Raises one of NOT_UNDERSTOOD where the event has none of the shapes that servers send.
    """
    words = error_words(event)
    if words is not None:
        fail(records, words)
    elif "meta_info" in event:
        return _take_native(records, arrival_ns, event)
    elif event.get("choices"):
        return _take_openai(records, arrival_ns, event)
    elif event.get("usage"):
        _take_usage(records, event["usage"])
    elif "choices" not in event and "usage" not in event:
        raise LookupError
    return None


def fail(records: Sequence[Record], words: str) -> None:
    """The server ends what is still running: of a batch, the prompts without a finish reason."""
    for record in records:
        if len(records) == 1 or record.finish_reason is None or record.went_on:
            record.error = record.error or f"server: {words}"


def _count(value: int | str) -> int:
    """A number of tokens. Raises one of NOT_UNDERSTOOD where it is none that a server can have
    counted: what is computed for each token would take all memory."""
    count = int(value)
    if not 0 <= count <= MOST_TOKENS:
        raise ValueError
    return count


def _place(records: list[Record], event: dict[str, Any]) -> tuple[int, Record]:
    index = int(event.get("index") or 0)
    return index, records[index if index >= 0 else len(records)]


def _take_native(
    records: list[Record], arrival_ns: int, event: dict[str, Any]
) -> tuple[int, int | None]:
    meta, (index, record) = event["meta_info"], _place(records, event)
    tokens = _count(meta["completion_tokens"])
    record.add(arrival_ns, tokens)
    record.prompt_tokens = _count(meta.get("prompt_tokens") or 0)
    record.cached_tokens = _count(meta.get("cached_tokens") or 0)
    _finish(record, meta.get("finish_reason"))
    if record.finish_reason is not None:
        record.output_ids_sha256 = digest_of(event.get("output_ids"), tokens)
    return index, tokens


def digest_of(ids: object, tokens: int) -> str | None:
    """SHA-256, in hex, of token ids in decimal with a space between two. None where they are not
    all there: servers may send with each event what is new since the last."""
    if not isinstance(ids, list) or len(ids) != tokens or {*map(type, ids)} != {int}:
        return None
    return sha256((b"%d " * tokens % (*ids,))[:-1]).hexdigest()  # twice as fast as join and str


def _take_openai(
    records: list[Record], arrival_ns: int, event: dict[str, Any]
) -> tuple[int, int | None] | None:
    choices, taken = event["choices"], None
    usage: dict[str, Any] = event.get("usage") or {}
    if len(choices) > 1:
        usage = {}  # of which of the prompts?
    for choice in choices:
        index, record = _place(records, choice)
        # 0, while text comes: the server fills it in at the end
        tokens = _count(usage.get("completion_tokens") or 0) or None
        record.add(arrival_ns, tokens, has_text(choice))
        if usage:
            _take_prompt_usage(record, usage)
        words = error_words({"choices": None, "error": choice.get("error")})
        if words is not None:
            fail([record], words)
        _finish(record, choice.get("finish_reason"))
        taken = index, tokens
    return taken if len(choices) == 1 else None


def has_text(choice: dict[str, Any]) -> bool:
    """Whether a choice brought output: `text`, or a `delta` (chat) with content of any kind."""
    delta = choice.get("delta") or choice.get("message") or {}
    said = {key: delta[key] for key in delta if key not in ("role", "type")}
    return bool(choice.get("text")) or says_something(said)


def _finish(record: Record, reason: object) -> None:
    """Note a finish reason; null and "" are none. Some servers send the word "null"."""
    message: object = None
    if isinstance(reason, dict):
        message, reason = reason.get("message"), reason.get("type")
    if not reason or str(reason).lower() in ("null", "none"):
        return
    record.finish_reason = str(reason)
    if record.finish_reason == "abort":
        record.error = record.error or f"aborted: {server_message(message or 'by the server')}"
    elif record.finish_reason == "error":
        record.error = record.error or f"server: {server_message(message or 'finish reason error')}"


def _take_prompt_usage(record: Record, usage: dict[str, Any]) -> None:
    record.prompt_tokens = _count(usage.get("prompt_tokens") or 0)
    details = usage.get("prompt_tokens_details") or {}
    record.cached_tokens = _count(details.get("cached_tokens") or 0)


def _take_usage(records: list[Record], usage: dict[str, Any]) -> None:
    """The total of a server that counts only at the end; a batch's is not known by prompt."""
    if not any(record.uncounted_ns for record in records):
        return
    if len(records) == 1:
        records[0].count_late(_count(usage["completion_tokens"]))
        _take_prompt_usage(records[0], usage)
        return
    for record in records:
        record.tokens, record.events = 0, []
        record.error = (
            "uncounted: the server counts a batch as one; use --batch 1 "
            "(or an sglang with continuous_usage_stats: 0.5.6 or later)"
        )

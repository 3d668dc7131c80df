"""A model folder without weights: a shape's config.json and a tokenizer made here."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

from repro_pp_graphs.client.prompts import SYNTHETIC_WORDS
from repro_pp_graphs.files import write_whole

_HERE = Path(__file__).parent
_SPECIAL = ("<s>", "</s>", "<pad>")


@functools.cache
def shapes() -> tuple[str, ...]:
    """The names of the shapes in this package."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.json")))


def config_path(shape: str) -> Path:
    """The config.json of a shape."""
    return _HERE / f"{shape}.json"


@functools.cache
def config_text(shape: str) -> str:
    """What is in the config.json of a shape: read once, as nothing changes the package."""
    return config_path(shape).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=64)
def shape_of(model: str) -> str | None:
    """The shape that a model's path or hub name stands for (`…/Llama-3.1-70B-Instruct`), or None.

    The longest match wins, so that a name holding two of them is read as the finer one.
    """
    plain = model.lower().replace("_", "-").replace("meta-llama-3", "llama-3")
    hits = [
        shape
        for shape in shapes()
        if re.search(rf"(?<![a-z0-9]){re.escape(shape)}(?![a-z0-9])", plain)
    ]
    return max(hits, key=len, default=None)


def called(model: str) -> str:
    """A server's model in words: a hub name as it is; a folder by its name, as its path is long."""
    return Path(model).name if model.startswith("/") else model


def byte_tokens() -> list[str]:
    """The 256 byte symbols of a byte-level BPE, in GPT-2's printable spelling.

    Printable Latin-1 characters stand for themselves, the others for U+0100 and following.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def merges() -> list[tuple[str, str]]:
    """What joins each of the client's synthetic words, with the blank before it, to one token: from
    its left end on, so that nothing is joined in the midst of another word."""
    blank = byte_tokens()[ord(" ")]
    joined = {
        (blank + word[:at], word[at]): None for word in SYNTHETIC_WORDS for at in range(len(word))
    }
    return list(joined)


def tokenizer() -> dict[str, object]:
    """A byte-level tokenizer.json, nothing trained: a token a byte, but for the client's synthetic
    words, of which each is one token as in real vocabularies: an --input-len is in tokens."""
    pairs = merges()
    tokens = [*_SPECIAL, *byte_tokens(), *map("".join, pairs)]
    vocab = {token: number for number, token in enumerate(tokens)}
    added = [
        {
            "id": vocab[token],
            "content": token,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for token in _SPECIAL
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [" ".join(pair) for pair in pairs]},
    }


def write(shape: str, folder: Path) -> None:
    """Write a shape's model folder. Raises KeyError for an unknown shape."""
    if shape not in shapes():
        raise KeyError(shape)
    config = json.loads(config_text(shape))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    files: dict[str, object] = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            **special,
        },
        "special_tokens_map.json": special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_whole(folder / name, text)  # another run's server may be reading it

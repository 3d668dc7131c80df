"""What secrets are called, what stands around them and what they look like: the lists and patterns
that masking reads."""

from __future__ import annotations

import re
from typing import NamedTuple

MASK = "<masked>"  # in the place of a secret

# --- names, in small letters with _ for all but letters and digits, _ first and last ---

NO_VALUE = {
    "", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null",
    # the next word of a sentence about an option
    "a", "an", "and", "as", "at", "by", "for", "if", "in", "is", "it", "must", "not", "of", "or",
    "its", "so", "than", "that", "the", "then", "there", "this", "to", "was", "were", "whether",
    "which", "will", "with",
}  # fmt: skip
SECRET_NAME = re.compile(
    "secret|passw|passphrase|token|credential|cookie|authoriz|bearer|signature|webhook|jwt|mnemonic"
    "|api_?key|access_?key|session_?(?:id|key)|key_|_keys_|connection_?string"
    "|_(?:auth|oauth2?|pass|pwd|pw|pat|sas|sig|dsn|pin|otp|creds?|salt|serial)_"
)
_OF_SECRETS = "api|access|auth|bearer|hf_|key|refresh|secret|session"
NO_SECRET = re.compile(
    "tokeniz|token_ids|token_count|key_value|forward_pass|ib_pkey"
    "|token_map|first_token|inter_token|token_usage|token_num"
    "|tokens_(?:buckets|ratio|histogram|to|per)"
    "|tiktoken|asttokens|pyjwt|monkey"  # packages, and a word that ends in key
    # counts
    "|(?<![a-z0-9])(?:max|min|num|total)_"
    f"(?:(?!{_OF_SECRETS})[a-z0-9]+_){{0,6}}?tokens(?![a-z0-9])"
    "|(?<![a-z0-9])(?:num|per|(?:max|min)_(?:new|num|total))_token(?![a-z0-9])"
    "|(?<![a-z0-9])(?:draft|prefill|decode|input|output|prompt|completion)_tokens(?![a-z0-9])"
    # what becomes of the tokens that a model generates, and where ranks and memory are bound
    "|token_(?:send|recv|receive|return|transfer|messages?|capacity|threshold|to_kv_pool)s?"
    "(?![a-z0-9])"
    "|(?<![a-z0-9])(?:send|sent|recv|received)_tokens(?![a-z0-9])"
    "|(?<![a-z0-9])pin_(?:cpus?|memory)(?![a-z0-9])"
    # words of a vocabulary, and keys by which something is found
    "|(?:bos|eos|pad|unk|sep|cls|mask|image|video|audio)_tokens?(?![a-z0-9])"
    "|(?:watermark|hashing|sort|cache|partition|foreign|routing|graph)_keys?(?![a-z0-9])"
)
# a token of which something is counted (token_steps, token_chunks): beside a number alone no secret
COUNTED = re.compile(f"token_(?!{_OF_SECRETS}|id|value|string|text|code|num|hash|pass)(?=[a-z])")
# a key of something that has none to hide, unless its value is as long as a key
MAY_BE_PLAIN = re.compile(
    "(?!.*(?:api|access|account|admin|auth|client|crypt|licen|master|priv|secret|serv|session|shared"
    "|sign|ssh|ssl|token|pass|user)).*_key_$"
)
PLAIN_VALUE = re.compile("[a-z]{1,7}|[0-9]{1,9}|[0-9]+[.][0-9]+")
# one of them is in each name that promises a secret
HINTS = (
    "key|token|secret|pass|pwd|pw|auth|cred|cookie|bearer|sig|webhook|jwt|session|pat|dsn|pin|otp"
    "|salt|serial|mnemonic|connection"
)

# --- what stands around a secret ---


class Around(NamedTuple):
    """A secret after a literal: of what matches there, group 1 stays."""

    literals: tuple[str, ...]  # in small letters
    pattern: re.Pattern[str]


def _around(literals: str, pattern: str) -> Around:
    return Around(tuple(literals.split("|")), re.compile(pattern, re.IGNORECASE | re.ASCII))


AROUND = (
    _around(
        "authorization|cookie", r"((?:authorization|cookie)[\"'\\]*\s*[:=][\"'\\\s]*)[^\"\n']+"
    ),
    _around("bearer", r"(bearer(?:[\s:=]|%20)+)[^\s\"',]{6,}"),
    _around("basic", r"(basic(?:\s|%20)+)[^\s\"',]{6,}"),
    _around("hooks.slack.com/", r"(hooks\.slack\.com/[a-z]+/)[^\s\"']+"),
    _around("discord", r"(discord(?:app)?\.com/api/webhooks/)[^\s\"']+"),
    _around("webhook.office.com/", r"(webhook\.office\.com/)[^\s\"']+"),
    _around(
        "-u|--user|--proxy-user", r"((?<!\S)(?:-u|--(?:proxy-)?user)[\s=]*(?![\s=])[^\s:/]+:)\S+"
    ),
    _around("sshpass", r"(sshpass\s+-p\s*)\S+"),
    _around("login", r"(login\s+\S+\s+password\s+)\S+"),
)

# --- what a secret looks like ---

KEY_BEGIN = re.compile("-{4,5} ?BEGIN[A-Z0-9 ]{0,40}PRIVATE KEY")
KEY_END = re.compile("-{4,5} ?END[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{0,5}")
UUID = re.compile("-(?<=[0-9a-fA-F]{8}-)(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
DISCORD = re.compile(r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}")
DISCORD_HEAD = re.compile(r"[MNOmno][A-Za-z0-9_-]{23,25}$")
# What vendors' tokens look like: a prefix of theirs, then letters that make no words.
VENDOR = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk-|gl(?:pat|rt|ptt|dt|soat|ft|cbt|imt|agent)-|xox[a-z]-|xapp-|pypi-|nvapi-|xai-|tvly-"
    r"|pplx-|GOCSPX-|NRAK-|PMAK-|A[KSB]IA|ACCA|AIza|ya29\.|1//0|hv[sb]\.|SG\.|eyJ"
    r"|dapi|ATATT3|ATBB|AGE-SECRET-KEY-|[A-Za-z0-9_~.-]{3}[0-9]Q~)[A-Za-z0-9_.=-]{10,}"
    r"|(?:hf|api_org|[srp]k(?:_live|_test)?|whsec|gh[pousr]|github_pat|npm|gsk|r8|dckr_[a-z]{1,20}"
    r"|do[opr]_v1|wandb_v1|lin_api|shp(?:at|ss|ca)|sntry[su]|glsa|rpa|figd|sb[pt]?|sb_secret"
    r"|pscale_tkn|ops)_[A-Za-z0-9]{10}[A-Za-z0-9_.=-]*)"
)
TELEGRAM = re.compile(":(?<=[0-9]{8}:)AA[A-Za-z0-9_.=-]{10,}")

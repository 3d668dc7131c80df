"""Masking: what is a secret among others, what stays, and how the work grows with the text."""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from planted_secrets import SECRETS

from repro_pp_graphs.environment import masking, spans
from repro_pp_graphs.environment.masking import Masker
from repro_pp_graphs.environment.secret_words import MASK
from repro_pp_graphs.run.launch import failure
from repro_pp_graphs.server.log.diagnosis import Diagnosis
from repro_pp_graphs.server.log.log_lines import Line

PACKAGE = Path(__file__).resolve().parents[1] / "repro_pp_graphs"
DATA = Path(__file__).parent / "data"
TRACES = [path for path in sorted((DATA / "traces").iterdir()) if path.is_dir()]


def masked(text: str, **environ: str) -> str:
    return Masker(environ).text(text)


@pytest.mark.parametrize("between", [" ", "\n", "; ", ", "])
def test_no_secret_frees_its_neighbour(between: str) -> None:
    """A quote or a name that belongs to one secret may be taken for a part of the next."""
    masker = Masker({})
    leaks = [
        (first, second)
        for (first, (text, one)), (second, (other, two)) in itertools.permutations(
            SECRETS.items(), 2
        )
        if one in (found := masker.text(f"{text}{between}{other}")) or two in found
    ]
    assert leaks == []


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_masked_in_a_string_of_json_and_in_json_within_json(kind: str) -> None:
    text, secret = SECRETS[kind]
    assert secret not in str(Masker({}).json({"text": [text, {"again": text}]}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("token: can't\n--password 'x y xyzzy-1' z", f"token: {MASK} z"),
        ("Cookie: a=b --password 'x y' z", f"Cookie: {MASK}"),
        (f"curl -H 'Authorization: Bearer {'x' * 9}' --password 'x y' z", "curl -H 'Author"),
        ('{\\"hf_token\\": \\"a b\\", \\"tp\\": 4}', f'{{\\"hf_token\\": {MASK}, \\"tp\\": 4}}'),
        ("https://h:8000/p?x=1 http://a:b@c/d", f"https://h:8000/p?x=1 http://{MASK}@c/d"),
        ("api_key={'a': 1} and token={'a': 2}", f"api_key={MASK} 1}} and token={{'a': 2}}"),
        ("NCCL_IB_PKEY=0x7fff", "NCCL_IB_PKEY=0x7fff"),
        (f"key: {'x' * 9}", f"key: {MASK}"),
        ("watermark_api_key=abc", f"watermark_api_key={MASK}"),
        ("DOOR_SECRET_KEY=4711", f"DOOR_SECRET_KEY={MASK}"),
        ("--max-api-tokens abc", f"--max-api-tokens {MASK}"),
        ("--api-tokens abc", f"--api-tokens {MASK}"),
        ("token_send_password: abc", f"token_send_password: {MASK}"),
        ("token_value: 4711", f"token_value: {MASK}"),
        ("token_key_id: 4711", f"token_key_id: {MASK}"),
        ("TOKEN_PIN=4711", f"TOKEN_PIN={MASK}"),
        ("HF_TOKEN=123456789", f"HF_TOKEN={MASK}"),
        ("token_steps: abc", f"token_steps: {MASK}"),
        ("tiktoken_token: 1.2.3", f"tiktoken_token: {MASK}"),
    ],
)
def test_of_a_text_the_secrets_are_masked_and_no_more(text: str, found: str) -> None:
    assert masked(text).startswith(found)
    assert "x y" not in masked(text)
    assert "xyzzy" not in masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "tiktoken==0.12.0", "'tiktoken': '0.12.0'", "PyJWT==2.10.1",
        "reduce --max-total-tokens to avoid the", "--max-new-tokens N (default", "max_new_token=n",
        "set --api-key, or --hf-token to the", "SGLANG_EP_NUM_MAX_DISPATCH_TOKENS_PER_RANK=auto",
        "num_draft_tokens='auto'", "--visualize-per-token auto", "eos_token='</s>'",
        "'watermark_key': None", "'watermark_key': 'none_at_all'", "'watermark_key': 15485863",
        "graph_key: (4, False)", "the key: auto", "monkey: patched-by-somebody",
        "token_send: handing them on", "token_send: send=0 of the last rank's send of token ids",
        "token_return_ms: not-said", "free_token_send='none'", "send_tokens=Spread(1)",
        "token_capacity: 16384", "memory_usage.token_capacity: 2144080", "token_capacity='a'",
        "token_capacity_swa: [1, 2]", "'token_steps': 7", "req_to_token_pool_size: 2048",
        "--pin-cpus 0-3:4-7", "pin_cpus='auto'", "token: whether the machine changed",
    ],
)  # fmt: skip
def test_what_only_sounds_like_a_secret_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("folder", TRACES, ids=[path.name for path in TRACES])
def test_an_analysis_holds_no_word_that_is_masked(folder: Path) -> None:
    pytest.importorskip("msgspec")
    from trace_changes import analysis_of  # noqa: PLC0415

    from repro_pp_graphs.traces.explain import analysis_lines  # noqa: PLC0415

    said = analysis_lines.lines(analysis_of(folder.name))
    assert any("token" in line for line in said)
    for text in (*said, "\n".join(said)):
        assert Masker({}).string(text) == text


def test_a_field_that_names_the_others_of_its_row_is_no_secret_and_tells_of_theirs() -> None:
    change = {"section": "software", "key": "this checkout", "before": "a", "after": "b"}
    process = {"section": "server", "key": "process 6425", "before": "none", "after": "running"}
    row = {"name": "token return", "value": "21.7 ms"}
    assert Masker({}).json([change, process, row]) == [change, process, row]
    variables = [{"name": "HF_TOKEN", "value": "not-to-be-seen"}]
    variables += [{"key": "MY_PASSWORD", "before": "not-to-be-seen", "after": "neither-is-it"}]
    said = str(Masker({}).json(variables))
    assert "seen" not in said and "neither" not in said and "MY_PASSWORD" in said
    masker = Masker({})
    masker.learn_from_json(variables)
    assert masker.text("x not-to-be-seen") == f"x {MASK}"
    assert Masker({}).json({"key": "only-this-one"}) == {"key": MASK}


def test_a_private_key_ends_where_it_ends() -> None:
    key = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIabc+/=\nxyz\n"
    end = "-----END EC PRIVATE KEY-----"
    assert masked(f"before\n{key}{end}\nafter") == f"before\n{MASK}\nafter"
    without_end = masked(f"before\n{key}[10:00] a line of the log")
    assert without_end == f"before\n{MASK}[10:00] a line of the log"


def test_a_known_secret_is_masked_however_it_is_spelled() -> None:
    secret = 'pä"ss wörd/7'
    masker = Masker({"MY_PASSWORD": secret})
    spellings = [
        secret, "p%C3%A4%22ss%20w%C3%B6rd%2F7", 'pä\\"ss wörd/7', 'p\\u00e4\\"ss w\\u00f6rd/7',
        'p??"ss w??rd/7',
    ]  # fmt: skip
    for text in spellings:
        assert masker.text(f"see {text} here") == f"see {MASK} here"
        assert masker.string(f"see {text} here") == f"see {MASK} here"


def test_of_two_known_secrets_one_may_begin_like_the_other() -> None:
    masker = Masker({"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefgh-and-more"})
    assert masker.text("abcdefgh-and-more abcdefgh") == f"{MASK} {MASK}"


def test_json_keeps_what_is_no_secret_as_it_is() -> None:
    value = {"a": [1, -1.5e-9, True, None, "naïve 词\n"], "": {"b": []}, "tokens": 7}
    assert Masker({}).json(value) == value


def test_what_a_command_or_json_names_as_a_secret_is_learnt() -> None:
    masker = Masker({})
    masker.learn_from("serve --api-key 'only known/1' --tp 4")
    masker.learn_from_json({"args": ["--admin-api-key", "only-known-2"], "env": {"n": 1}})
    assert masker.text("no only known/1 nor only-known-2") == f"no {MASK} nor {MASK}"


def test_what_is_quoted_of_a_log_for_the_terminal_holds_no_secret(tmp_path) -> None:
    log = tmp_path / "server.log"
    log.write_text("x\n")
    line = Line(1, "ValueError: bad --api-key plugh-plugh")
    told = "\n".join(failure.lines(Diagnosis("a cause", "a remedy", line), log))
    assert "ValueError: bad --api-key <masked>" in told


# --- the project's own sentences ---------------------------------------------------------

MASKED_RIGHTLY = {  # modules whose strings hold what is masked, or the patterns of it
    "bundle/__main__.py", "client/key.py", "client/options.py", "environment/people.py",
    "environment/named_secrets.py",
}  # fmt: skip


def sentences(module: Path) -> Iterator[str]:
    """Its strings of several words, but for docstrings; where a value is put in stands `Xid 31`."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    left_out = {
        id(part)
        for node in ast.walk(tree)
        for part in (
            node.values if isinstance(node, ast.JoinedStr)
            else [node.value] if isinstance(node, ast.Expr) else ()
        )
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [
                each.value if isinstance(each, ast.Constant) else "Xid 31" for each in node.values
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = [node.value]
        else:
            continue
        text = "".join(map(str, parts))
        if " " in text.strip():
            yield text


def test_no_sentence_of_the_project_reads_like_a_secret() -> None:
    """`measured pass: Xid 31` was masked in reports: a password named pass."""
    said = [
        (text, masking.excerpt(text))
        for module in PACKAGE.rglob("*.py")
        if module.relative_to(PACKAGE).as_posix() not in MASKED_RIGHTLY
        for text in sentences(module)
    ]
    assert len(said) > 3000
    assert [text for text, masked in said if masked != text] == []


# --- the work ----------------------------------------------------------------------------

# what makes patterns read the same characters again and again
PIECES = {
    "names without an end": "key", "names with quotes": "key='", "apostrophes": "token: can't\n",
    "lists of lists": 'token=""{', "addresses": "://a", "addresses with users": "://@",
    "encoded addresses": "%3A%2F%2F", "keys that begin": "-----BEGIN PRIVATE KEY-----\n",
    "keys that end": "-----END PRIVATE KEY-----\n", "headers": "cookie: ", "options": "--key ",
    "users": " -u =", "logins": "login x ", "one word": "A", "a long random word": "aA1",
    "dots": "a.", "mail": "a@b.c@", "quotes": '"', "both quotes": "key='\"", "escapes": "\\",
    "escaped quotes": 'key=\\"', "spaces": " ", "line feeds": "\n", "hexadecimal": "1a2b3c4d-",
    "numbers": "tokens=[1,", "NCCL": "a:1:2 [3] NCCL ", "log": "[10:00] #token: 1, usage: 0.5\n",
}  # fmt: skip


def work(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """Calls made, and characters that the steps of a scan moved over."""
    count = 0
    original = spans.end

    def counted(pattern, text, start, *limit):
        nonlocal count
        end = original(pattern, text, start, *limit)
        count += end - start
        return end

    def on_event(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    with monkeypatch.context() as patch:
        patch.setattr(spans, "end", counted)
        sys.setprofile(on_event)
        try:
            call()
        finally:
            sys.setprofile(None)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("kind", PIECES)
def test_the_work_grows_as_the_text_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(pieces: int) -> int:
        return work(lambda: Masker({}).text(PIECES[kind] * pieces), monkeypatch)

    of(4)  # fills the caches
    few, many = of(2000), of(8000)
    assert many < 4 * few + 2000

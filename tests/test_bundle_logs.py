"""What of a log goes into a bundle: its ends, troubles and a sample, and no prompt."""

from __future__ import annotations

import json
import re

from repro_pp_graphs.bundle import contents
from repro_pp_graphs.bundle.shorten_log import shorten_log

A, B = "CASE_A_decode_graphs", "CASE_B_no_graphs"


def long_log(*extra: str, at: int = 2000) -> str:
    lines = [
        f"[10:00:{n:04} PP0] Decode batch, #running-req: 8, cuda graph: True" for n in range(4000)
    ]
    lines[:1] = ["[start] server_args=ServerArgs(" + "x" * 12000 + ")"]
    lines[at:at] = extra
    return "\n".join(lines) + "\n"


def test_a_short_log_stays_whole() -> None:
    text = "".join(f"line {n}\n" for n in range(100))
    assert shorten_log(text) == (text, "")


def test_a_long_log_keeps_its_ends_its_troubles_and_a_sample() -> None:
    trace = ["Traceback (most recent call last):", *["  File x, line 1"] * 40, "ValueError: bad"]
    text, note = shorten_log(long_log("before", *trace, "after"))
    lines = text.splitlines()
    assert len(lines[0]) > 12000  # the server's arguments are not cut
    assert lines[-1] == "[10:00:3999 PP0] Decode batch, #running-req: 8, cuda graph: True"
    assert "\n".join(["before", *trace]) in text
    assert 20 < sum("Decode batch" in line for line in lines) < 200
    left_out = [int(n) for n in re.findall(r"\[\.\.\. (\d+) lines left out \.\.\.\]", text)]
    kept = len(lines) - len(left_out)
    assert kept + sum(left_out) == 4000 + len(trace) + 2
    assert note.startswith(f"{kept} of 4044 lines")


def test_the_same_warning_over_and_over_is_kept_a_few_times() -> None:
    warnings = [f"[PP0] WARNING: attempt {n} failed" for n in range(900)]
    text, _ = shorten_log(long_log(*warnings))
    assert 3 <= text.count("WARNING: attempt") < 20


def test_lines_that_quote_prompts_are_left_out_and_counted() -> None:
    quoting = [
        "[10:00] Receive: obj=GenerateReqInput(text='my private prompt')",
        '{"event": "request.finished", "text": "my private prompt"}',
    ]
    text, note = shorten_log("\n".join(["ready", *quoting, "more"]))
    assert "private" not in text
    assert note == "2 lines that quote prompts left out"


def test_a_private_key_is_gone_even_where_the_cut_would_tear_it_apart() -> None:
    key = ["-----BEGIN PRIVATE KEY-----", *["MIIabcxyz/123"] * 30, "-----END PRIVATE KEY-----"]
    text = shorten_log(long_log(*key, at=3930)).text  # its head is cut away, its tail kept
    assert "MIIabcxyz" not in text
    assert "cuda graph: True" in text.splitlines()[-1]


def test_of_a_progress_bar_the_last_state_stays() -> None:
    assert shorten_log("0%\r50%\r100% done\nnext\n").text == "100% done\nnext\n"


def test_a_very_long_line_is_cut_between_words() -> None:
    line = shorten_log("word " * 300 + "hf_" + "a" * 2000).text
    assert re.fullmatch(r"(word )+\[\.\.\. \d+ characters left out \.\.\.\]\n", line)


def test_json_keeps_an_option_beside_its_value() -> None:
    value = {"args": ["--api-key", "x"], "list": [{"a": []}, [1, 2]], "none": {}}
    text = contents.dumps(value)
    assert '"args": ["--api-key", "x"]' in text
    assert json.loads(text) == value

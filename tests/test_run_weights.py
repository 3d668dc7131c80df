"""What a plan says of the weights: on the fullest rank, of a GPU's memory, as documented."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from gpu_plans import h100s, launch
from made_up_run import plan

from repro_pp_graphs.run.checks import preflight
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.server.machine import gpus


def test_a_plan_says_what_the_weights_take_of_a_gpu_and_which_memory_was_assumed():
    fraction = ["--mem-fraction-static", "0.85"]
    said = partial(weights.sentences, gpus=gpus.assumed(4).gpus)
    assert said(plan(launch(args=fraction))) == [
        "about 38.4 GB of weights on the fullest rank (PP0, 20 layers); a GPU has 85.5 GB (81559 "
        "MiB, assumed), of which --mem-fraction-static 0.85 leaves 34.3 GB for the KV cache, about "
        "420,000 tokens"
    ]
    fraction = ["--mem-fraction-static", "0.88"]
    (text,) = said(plan(launch(pp_size=2, args=fraction)))
    assert "about 72.7 GB" in text and "leaves 2.6 GB for the KV cache, about 16,000 tokens" in text
    takes = ", of which --max-total-tokens takes"
    for other, tokens in ((["--kv-cache-dtype", "fp8_e5m2"], ""),
                          (["--max-total-tokens", "65536"], ", about 16,000 tokens"),
                          (["--max-total-tokens", "4096"], f"{takes} 0.7 GB, 4,096 tokens"),
                          (["--max-total-tokens", "400"], f"{takes} 66 MB, 400 tokens"),
                          (["--kv-cache-dtype", "fp8_e5m2", "--max-total-tokens", "4096"],
                           ", 4,096 tokens at most (--max-total-tokens)")):  # fmt: skip
        (text,) = said(plan(launch(pp_size=2, args=[*fraction, *other])))
        assert text.endswith(f"leaves 2.6 GB for the KV cache{tokens}")
    eight_layers = ["--json-model-override-args", '{"num_hidden_layers": 8}']
    args = ["--mem-fraction-static", "0.85", *eight_layers, "--max-total-tokens", "65536"]
    given = {"pp_size": 2, "sglang_version": "0.5.2", "args": args}
    (text,) = said(plan(launch(model="deepseek-ai/DeepSeek-V3", **given)))
    assert text.endswith(f"{takes} 0.3 GB, 65,536 tokens"), "sglang says 0.28 GiB"
    (text,) = said(plan(launch(model="deepseek-ai/DeepSeek-V3")))
    assert "about 186.0 GB of weights on the fullest rank (PP3, 16 layers)" in text
    assert text.endswith("of which weights can take 95%: they do not fit")
    (text,) = weights.sentences(plan(launch()), h100s(4))
    assert "assumed" not in text


def test_a_plan_says_where_it_cannot_tell_whether_weights_fit():
    (text,) = weights.sentences(plan(launch(model="x/y")), h100s(4))
    assert "cannot tell" in text and "size is not known" in text
    silent = [replace(gpu, total_mib=0) for gpu in h100s(4)]
    (text,) = weights.sentences(plan(launch()), silent)
    assert text.startswith("about 38.4 GB of weights on the fullest rank (PP0, 20 layers); cannot ")


DEEPSEEK = "deepseek-ai/DeepSeek-V3"


@pytest.mark.parametrize(
    ("version", "env", "layers", "fits"),
    [
        ("0.5.23", {}, "PP15, 4 layers", True),
        ("0.5.6", {}, "PP15, 4 layers", True),
        ("0.5.5.post3", {}, "PP15, 16 layers", False),
        ("0.5.2", {}, "PP15, 16 layers", False),
        ("0.5.2", {weights.PARTITION: "4," * 15 + "1"}, "PP14, 4 layers", True),
    ],
)
def test_the_fullest_rank_is_that_of_the_releases_own_split(
    version, env, layers, fits, monkeypatch
):
    monkeypatch.delenv(weights.PARTITION, raising=False)
    made = plan(launch(model=DEEPSEEK, pp_size=16, sglang_version=version, env=env))
    (text,) = weights.sentences(made, h100s(16))
    assert layers in text and ("do not fit" not in text) == fits
    problems = preflight.check_memory(made, h100s(16))
    assert [layers.split(",")[0].replace("PP", "PP rank ") in one for one in problems] == (
        [] if fits else [True]
    )


def test_a_split_of_another_number_of_layers_is_not_known():
    made = plan(launch(env={weights.PARTITION: "20,20,20,30"}))
    (text,) = weights.sentences(made, h100s(4))
    assert text.startswith("cannot tell whether the weights")


def test_cases_of_releases_that_split_otherwise_have_a_sentence_each():
    old = launch(model=DEEPSEEK, pp_size=8, sglang_version="0.5.2", case="old")
    new = launch(model=DEEPSEEK, pp_size=8, sglang_version="0.5.23", case="new")
    first, second = weights.sentences(plan(old, new, new), gpus.assumed(8, 141).gpus)
    assert first.startswith("old: about 139.9 GB") and second.startswith("new: about 93.9 GB")


def rows_of_the_docs() -> list[tuple[int, list[str]]]:
    """The rows on DeepSeek-V3 in docs/several_hosts.md, each with its GPUs' GB."""
    text = (Path(__file__).parents[1] / "docs" / "several_hosts.md").read_text("utf-8")
    found, each_gb = [], 0
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "H100" in cells[0] or "H200" in cells[0]:
            each_gb = 141 if "H200" in cells[0] else 80
        if len(cells) == 6 and cells[5].endswith(" million"):
            found.append((each_gb, cells))
    return found


def test_the_table_of_the_docs_is_what_the_plan_says():
    rows = rows_of_the_docs()
    assert len(rows) == 8
    for each_gb, (_, sizes, layers, taken, left, tokens) in rows:
        pp_size, tp_size = map(int, sizes.split(" x "))
        made = plan(
            launch(
                model=DEEPSEEK,
                sglang_version="0.5.23",
                pp_size=pp_size,
                tp_size=tp_size,
                args=["--mem-fraction-static", "0.85"],
            )
        )
        (text,) = weights.sentences(made, gpus.assumed(pp_size * tp_size, each_gb).gpus)
        assert f"about {taken} of weights on the fullest rank" in text, sizes
        assert f", {layers} layers)" in text, sizes
        assert f"leaves {left} for the KV cache" in text, sizes
        number = float(tokens.removesuffix(" million")) * 1e6
        assert text.endswith(f"about {number:,.0f} tokens"), sizes


def test_a_rehearsal_asks_nothing_of_the_gpus():
    assert weights.sentences(plan(launch(), mode="cpu"), []) == []
    assert preflight.check_memory(plan(launch(), mode="cpu"), []) == []

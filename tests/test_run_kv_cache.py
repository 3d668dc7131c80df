"""The room for the KV cache: a load that cannot fit is refused, with values that do."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import pytest
from gpu_plans import NEARLY_FULL, asking, deep, h100s, h200s, launch
from made_up_run import plan

from repro_pp_graphs.models import folder
from repro_pp_graphs.run.checks import kv_cache, preflight
from repro_pp_graphs.run.memory import fitting, weights
from repro_pp_graphs.run_record import Load, Plan
from repro_pp_graphs.server.machine.gpus import Gpu


def test_a_plan_whose_weights_leave_nothing_for_the_kv_cache_is_refused():
    (problem,) = preflight.check_memory(plan(deep("0.5.2"), deep("0.5.2", label="B")), h200s(8))
    assert "about 139.9 GB of weights on PP rank 7" in problem
    assert "0.85 of a GPU of 150.8 GB is 128.1 GB: nothing is left for the KV cache" in problem
    assert "a smaller --model" in problem and "--pp-size" in problem
    assert preflight.check_memory(plan(deep("0.5.23")), h200s(8)) == []
    raised = ["--mem-fraction-static", "0.93"]
    assert preflight.check_memory(plan(deep("0.5.2", *raised)), h200s(8)) == []


@pytest.mark.parametrize(
    "given",
    [
        {"args": ["--mem-fraction-static", "0.85", "--cpu-offload-gb", "20"]},
        {"args": ["--mem-fraction-static", "0.85", "--torchao-config", "int8wo"]},
        {"args": ["--mem-fraction-static", "0.85", "--load-format", "gguf"]},
        {"args": []},  # sglang chooses a share itself
    ],
)
def test_where_it_is_not_certain_that_nothing_is_left_the_run_is_not_refused(given):
    assert preflight.check_memory(plan(deep("0.5.2", **given)), h200s(8)) == []
    shared = plan(deep("0.5.2"), ranks_per_gpu=2)
    assert not kv_cache.lacking(shared, shared.launches[0], h200s(8))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (asking(*NEARLY_FULL, tokens=4000), "one prompt with its answer takes 4,001 or more"),
        (asking(*NEARLY_FULL, tokens=4000, mode="cpu"), ""),
        (asking(*NEARLY_FULL, tokens=4000, ranks_per_gpu=2), ""),
        (asking(*NEARLY_FULL, "--kv-cache-dtype", "fp8_e5m2", tokens=4000), ""),
        (asking(*NEARLY_FULL, tokens=100), ""),
        (asking("--max-total-tokens", "200"), "--max-total-tokens 200: one prompt with its answer"),
        (asking("--max-total-tokens", "200", mode="cpu"), "takes 257 tokens or more"),
        (asking("--max-total-tokens", "257"), ""),
        (
            asking("--max-total-tokens", "257",
                   loads=[Load("x", "x", {}, 1, 8), Load("y", "y", {}, 1, 8, input_len=250)]),
            "takes 258 tokens or more",
        ),
    ],
)  # fmt: skip
def test_a_load_of_which_no_prompt_fits_into_the_kv_cache_is_refused(made, says):
    (found,) = {kv_cache.lacking(made, each, h100s(2)) for each in made.launches}
    assert bool(found) == bool(says) and says in found, found
    if found:
        assert preflight.check_memory(made, h100s(2)) == [found]
        assert kv_cache.queued(made, h100s(2)) == []


def refused(made: Plan, count: int = 2) -> str:
    return " ".join(preflight.check_memory(made, h100s(count)))


NAMED = re.compile(
    r"--layers (?P<most>\d+)(?P<all> or fewer)?(?: \((?P<roomiest>\d+) leaves room for all)?"
)


def with_layers(made: Plan, layers: int) -> Plan:
    override = ["--json-model-override-args", json.dumps({"num_hidden_layers": layers})]
    launches = [replace(one, args=[*one.args, *override]) for one in made.launches]
    return replace(made, launches=launches)


@pytest.mark.parametrize(
    "made",
    [
        asking(*NEARLY_FULL, tokens=1000),
        asking("--mem-fraction-static", "0.85"),
        asking("--mem-fraction-static", "0.5"),
        plan(deep("0.5.23", pp_size=2)),  # more than both GPUs have
    ],
)
def test_a_refusal_names_values_and_with_these_the_load_fits(made):
    said = refused(made)
    assert "--max-new-tokens" not in said
    named = NAMED.search(said)
    layers = int(named["roomiest"] or named["most"])
    tokens = kv_cache.of_load(made)
    held = [weights.tokens_held(one, h100s(2)) for one in with_layers(made, layers).launches]
    assert refused(with_layers(made, layers)) == "" and min(held) >= tokens
    more = [weights.tokens_held(one, h100s(2)) for one in with_layers(made, layers + 4).launches]
    assert min(more) < tokens
    if share := re.search(r"server_args_base.txt \((\S+) leaves room", said):
        raised = asking("--mem-fraction-static", share[1], tokens=made.max_new_tokens)
        lower = asking("--mem-fraction-static", f"{float(share[1]) - 0.04:g}")
        assert refused(raised) == ""
        assert weights.tokens_held(raised.launches[0], h100s(2)) >= tokens
        assert weights.tokens_held(lower.launches[0], h100s(2)) < tokens
    else:
        assert "GB of weights for" in said


@pytest.mark.parametrize("release", ["0.5.2", "0.5.23"])
@pytest.mark.parametrize("shape", sorted(set(folder.shapes()) - {"tiny"}))
def test_the_layers_that_a_refusal_names_are_the_most_that_a_plan_takes(
    monkeypatch, shape, release
):
    named = alone = 0
    sizes = itertools.product((1, 2, 4, 8), (1, 2), (8, 24, 40, 80, 141), (1, 4))
    for pp_size, tp_size, gib, ranks_per_gpu in sizes:
        count = -(-pp_size * tp_size // ranks_per_gpu)
        gpus = [Gpu(str(n), f"GPU-{n}", "NVIDIA", gib * 1020, 0) for n in range(count)]
        fields = {"pp_size": pp_size, "tp_size": tp_size, "sglang_version": release}
        one = launch(model=shape, args=["--mem-fraction-static", "0.85"], **fields)
        made = replace(plan(one), batch=16, max_new_tokens=256, ranks_per_gpu=ranks_per_gpu)
        found = NAMED.search(" ".join(preflight.check_memory(made, gpus)))
        if not found:
            continue
        named += 1
        layers = weights.config_of(one)["num_hidden_layers"]
        with monkeypatch.context() as patch:
            patch.setattr(fitting, "layers_that_fit", lambda *a: None)  # no advice: it is dear
            taken = [
                number
                for number in range(pp_size, layers + 1)
                if preflight.check_memory(with_layers(made, number), gpus) == []
            ]
        most = int(found["most"])
        assert most == max(taken), (pp_size, tp_size, gib, ranks_per_gpu)
        assert bool(found["all"]) == (taken == [*range(pp_size, most + 1)])
        assert int(found["roomiest"] or most) in taken
        alone += not found["all"]
    assert named >= 1 and (release == "0.5.2" or not alone)


def test_where_fewer_layers_are_more_on_the_last_rank_no_fewer_are_named():
    made = plan(launch(pp_size=8, sglang_version="0.5.2", args=["--mem-fraction-static", "0.5"]))
    gpus = [Gpu(str(n), f"GPU-{n}", "NVIDIA", 36000, 0) for n in range(8)]
    said = " ".join(preflight.check_memory(made, gpus))
    named = NAMED.search(said)
    assert (named["most"], named["all"]) == ("65", None), said
    assert preflight.check_memory(with_layers(made, 63), gpus), "its last rank has 14 layers"
    assert preflight.check_memory(with_layers(made, 65), gpus) == [], "nine at most"


def test_a_share_or_layers_that_would_not_do_either_are_not_advised():
    too_much = asking("--mem-fraction-static", "0.85", batch=512, tokens=4000)
    said = refused(too_much)
    assert "--mem-fraction-static 0.85 of a GPU" in said and "leaves room for what" not in said
    assert "--layers 79 or fewer (12 leaves room for all prompts at once and what CUDA" in said
    unknown = asking("--mem-fraction-static", "0.5", "--kv-cache-dtype", "fp8_e5m2")
    few = "or --dummy-weights with fewer --layers"
    assert "a larger share" in refused(unknown) and few in refused(unknown)
    chosen_by_sglang = plan(launch(pp_size=1))
    assert few in refused(chosen_by_sglang, 1)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (asking("--max-total-tokens", "4000"), "holds about 4,000 tokens, too few for 16 prompts"),
        (asking("--max-total-tokens", "4000", mode="cpu"), "which take 4,112 or more: some wait"),
        (asking("--max-total-tokens", "4000"), "ask for --batch 15 or fewer, or fewer --max-new"),
        (asking("--max-total-tokens", "4112"), ""),
        (asking("--mem-fraction-static", "0.88", batch=64), "too few for 64 prompts at once"),
        (asking("--mem-fraction-static", "0.88"), ""),
        (asking("--mem-fraction-static", "0.88", batch=64, ranks_per_gpu=2), ""),
        (asking(batch=64), ""),  # sglang chooses its share
    ],
)
def test_that_prompts_wait_for_room_in_the_kv_cache_is_said(made, says):
    text = " ".join(kv_cache.queued(made, h100s(2)))
    assert bool(text) == bool(says) and says in text, text


def test_where_one_case_has_less_room_its_note_has_its_name():
    made = asking("--max-total-tokens", "4112")
    made.launches[1].case, made.launches[1].args = "less", ["--max-total-tokens", "4000"]
    assert [each[:40] for each in kv_cache.queued(made, h100s(2))] == [
        "less: the KV cache holds about 4,000 tok"
    ]

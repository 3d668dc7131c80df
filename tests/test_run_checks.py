"""What is checked before, between and after servers: room, ports, traces, the arms' claims."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import made_up_run
import pytest
from fake_sglang.harness import wait_until
from made_up_run import plan

from repro_pp_graphs.launch_record import GraphState
from repro_pp_graphs.run.checks import kv_cache, preflight
from repro_pp_graphs.run.folder.trace_files import TraceFiles, is_whole_gzip
from repro_pp_graphs.run.launch import arm_check
from repro_pp_graphs.run.launch.arm_check import objections, observe
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run_record import Launch, Load, Plan
from repro_pp_graphs.server.log.log_lines import DecodeLine, prefills_with_graph
from repro_pp_graphs.server.machine import gpus, process
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.machine.listener import LOOPBACK, is_free

H100_MIB = 81559


launch = partial(
    made_up_run.launch,
    **{"python": sys.executable, "port": 30000, "model": "meta-llama/Llama-3.1-70B-Instruct"},
    **{"pp_size": 4, "expects_graphs": True, "captured_max_bs": 64},
)


def h100s(count: int, used_mib: int = 0) -> list[Gpu]:
    return [Gpu(str(n), f"GPU-{n}", "NVIDIA H100", H100_MIB, used_mib) for n in range(count)]


# ports


@contextlib.contextmanager
def listener(address: str = "127.0.0.1"):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, 0))
        server.listen()
        yield server


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_is_free_once_nobody_listens(address):
    with listener(address) as server:
        port = server.getsockname()[1]
        assert not is_free(LOOPBACK, port)
    assert is_free(LOOPBACK, port)


def test_a_connection_in_time_wait_does_not_hold_a_port():
    with listener() as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # the side that closes first waits
    assert is_free(LOOPBACK, port)


def test_each_busy_port_is_named_once():
    with listener() as server:
        port = server.getsockname()[1]
        (problem,) = preflight.check_ports(plan(launch(port=port), launch(label="B", port=port)))
    assert str(port) in problem and "--port" in problem


# memory and disk


def test_a_model_that_fits_is_no_problem():
    assert preflight.check_memory(plan(launch()), h100s(4)) == []


def test_a_model_that_cannot_fit_is_refused_with_both_sizes():
    (problem,) = preflight.check_memory(plan(launch(pp_size=1)), h100s(1))
    assert "141 GB" in problem and "86 GB" in problem and "--dummy-weights" in problem


def test_only_the_gpus_of_the_ranks_count():
    (problem,) = preflight.check_memory(plan(launch(pp_size=1)), h100s(8))
    assert "141 GB" in problem


def test_dropped_layers_weigh_nothing():
    args = ["--json-model-override-args", '{"num_hidden_layers": 16}']
    assert preflight.check_memory(plan(launch(pp_size=1, args=args)), h100s(1)) == []


def test_each_node_holds_its_share():
    model = "deepseek-ai/DeepSeek-V3"  # 673 GB, eight GPUs have 684 and need some for other things
    assert preflight.check_memory(plan(launch(model=model, tp_size=2)), h100s(8))
    assert preflight.check_memory(plan(launch(model=model, tp_size=4, nodes=2)), h100s(8)) == []


def test_a_busy_gpu_is_named_and_an_unused_one_is_not():
    (problem,) = preflight.check_memory(plan(launch(pp_size=2, model="x/y")), h100s(1, 40000))
    assert "GPU 0" in problem and "40000 of 81559 MiB" in problem
    idle, busy = h100s(1)[0], h100s(2, 40000)[1]
    assert preflight.check_memory(plan(launch(pp_size=1, model="x/y")), [idle, busy]) == []


@pytest.mark.parametrize(
    "model",
    [
        "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",  # 40 GB
        "neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w4a16",
    ],
)
def test_a_quantised_model_on_the_hub_is_not_taken_for_bf16(model):
    assert preflight.check_memory(plan(launch(pp_size=1, model=model)), h100s(1)) == []


@pytest.mark.parametrize("method", ["awq", "gptq", "mxfp4", "compressed-tensors"])
def test_a_quantised_local_model_is_not_taken_for_bf16(tmp_path, method):
    config = json.loads(
        (Path(preflight.__file__).parents[2] / "models" / "llama-3.1-70b.json").read_text("utf-8")
    )
    config["quantization_config"] = {"quant_method": method}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert preflight.check_memory(plan(launch(pp_size=1, model=str(tmp_path))), h100s(1)) == []


def deep(release: str, *args: str, **changes) -> Launch:
    """DeepSeek-V3 over eight GPUs: twelve of its layers on the last rank in 0.5.2, eight since."""
    fields = {"model": "deepseek-ai/DeepSeek-V3", "pp_size": 8, "sglang_version": release}
    return launch(**{**fields, "args": ["--mem-fraction-static", "0.85", *args], **changes})


def h200s(count: int) -> list[Gpu]:
    return [Gpu(str(n), f"GPU-{n}", "NVIDIA H200", 143771, 0) for n in range(count)]


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


NEARLY_FULL = ["--mem-fraction-static", "0.8505"]  # 72.7 GB of weights, and some 260 tokens


def asking(*args: str, batch: int = 16, tokens: int = 256, **changes) -> Plan:
    """Llama-3.1-70B over two GPUs, and its load."""
    made = plan(launch(pp_size=2, args=list(args)), launch(pp_size=2, args=list(args), label="B"))
    return replace(made, batch=batch, max_new_tokens=tokens, **changes)


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
    layers = int(re.search(r"--layers (\d+) or fewer", said)[1])
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


def test_a_share_or_layers_that_would_not_do_either_are_not_advised():
    too_much = asking("--mem-fraction-static", "0.85", batch=512, tokens=4000)
    said = refused(too_much)
    assert "--mem-fraction-static 0.85 of a GPU" in said and "leaves room" not in said
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


@pytest.mark.parametrize(
    ("words", "input_len", "new", "says"),
    [
        ((), 131_072, 1, "131,072 tokens with 1 new ones is 131,073, and the context of Llama"),
        ((), 131_071, 1, ""),
        ((), None, 131_072, "a prompt of 1 tokens with 131,072 new ones is 131,073"),
        (("--context-length", "4096"), 4000, 97, "input_len=3935 or less, or fewer --max-new-tok"),
        (("--context-length", "4096"), 4000, 96, ""),
        (("--context-length", "4096", "--allow-auto-truncate"), 5000, 96, ""),
        (("--json-model-override-args", '{"max_position_embeddings": 100}'), 99, 2, "is 100: "),
        (("--json-model-override-args", '{"max_seq_len": 9}'), 131_072, 1, ""),  # not known
        (("--json-model-override-args", '{"rope_scaling": {"factor": 2}}'), 131_072, 1, ""),
    ],
)
def test_a_prompt_and_its_answer_must_fit_into_the_models_context(words, input_len, new, says):
    made = asking(*words)
    for one in made.launches:
        one.model = "/models/Llama-3.1-70B-Instruct"  # a hub's name alone is not that sure
    made.loads = [Load("l", "l", {}, 1, new, input_len=input_len)]
    text = " ".join(preflight.check_context(made))
    assert bool(text) == bool(says) and says in text, text
    for one in made.launches:
        one.model = "somebody/Llama-3.1-70B-with-a-million"
    if not words:
        assert preflight.check_context(made) == []


@pytest.mark.parametrize(
    ("context", "input_len", "tokens"),
    [
        (4096, 3500, 532),
        (4096, 4000, 256),
        (100_000, 3000, 1024),
        (4096, None, 1024),
        (1000, None, 750),
        (0, 3000, 1024),
    ],
)
def test_the_load_that_is_profiled_asks_for_no_more_than_the_context_holds(
    context, input_len, tokens
):
    made = asking(*(("--context-length", str(context)) if context else ()))
    if not context:
        for one in made.launches:
            one.model = "somebody/else"
    words = client_words.profiled(made, Load("l", "l", {}, 16, 256, input_len=input_len))
    assert int(words[words.index("--max-new-tokens") + 1]) == tokens


def test_where_one_case_has_less_room_its_note_has_its_name():
    made = asking("--max-total-tokens", "4112")
    made.launches[1].case, made.launches[1].args = "less", ["--max-total-tokens", "4000"]
    assert [each[:40] for each in kv_cache.queued(made, h100s(2))] == [
        "less: the KV cache holds about 4,000 tok"
    ]


def test_a_shape_that_is_not_counted_exactly_is_not_refused(tmp_path):
    folder = Path(preflight.__file__).parents[2] / "models"
    config = json.loads((folder / "deepseek-v3.json").read_text("utf-8"))
    for name, refused in (("DeepseekV3ForCausalLM", True), ("AnotherForCausalLM", False)):
        config["architectures"] = [name]
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        found = preflight.check_memory(plan(deep("0.5.2", model=str(tmp_path))), h200s(8))
        assert bool(found) == refused


def test_idle_gpus_are_a_remedy_only_where_they_are_enough():
    deep = plan(launch(model="deepseek-ai/DeepSeek-V3"))
    (text,) = preflight.check_memory(deep, h100s(8))
    assert "more GPUs" in text and "all 8 GPUs" not in text
    (text,) = preflight.check_memory(deep, h100s(16))
    assert "all 16 GPUs (--pp-size" in text


@pytest.mark.parametrize(
    "config",
    [
        "{}",
        "not json",
        '{"text_config": {"hidden_size": 1}}',
        '{"hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 27, '
        '"vocab_size": 102400, "kv_lora_rank": 512, "q_lora_rank": null, "qk_rope_head_dim": 64, '
        '"qk_nope_head_dim": 128, "v_head_dim": 128, "first_k_dense_replace": 1, '
        '"n_routed_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1408, '
        '"intermediate_size": 10944}',
    ],
    ids=["empty", "not JSON", "nested", "DeepSeek-V2-Lite"],
)
def test_a_config_of_another_shape_is_no_obstacle(tmp_path, config):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    assert preflight.check_memory(plan(launch(pp_size=1, model=str(tmp_path))), h100s(1)) == []


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
    for other, tokens in ((["--kv-cache-dtype", "fp8_e5m2"], ""),
                          (["--max-total-tokens", "65536"], ", about 16,000 tokens"),
                          (["--max-total-tokens", "4096"], ", about 4,100 tokens")):  # fmt: skip
        (text,) = said(plan(launch(pp_size=2, args=[*fraction, *other])))
        assert text.endswith(f"leaves 2.6 GB for the KV cache{tokens}")
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


def test_room_is_needed_for_each_traced_launch(tmp_path, monkeypatch):
    monkeypatch.setattr(
        preflight.shutil, "disk_usage", lambda path: type("U", (), {"free": 3 * 2**30})
    )
    assert preflight.check_disk(plan(launch()), tmp_path) == []
    (problem,) = preflight.check_disk(plan(launch(), launch()), tmp_path)
    assert "3.0 GiB" in problem and "--no-profile" in problem
    assert preflight.check_disk(plan(launch(), launch(), profile=False), tmp_path) == []


# models


def test_a_local_folder_needs_a_config(tmp_path):
    (problem,) = preflight.check_models(plan(launch(model=str(tmp_path)), launch(label="B")))[:1]
    assert "config.json" in problem and str(tmp_path) in problem
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert preflight.check_models(plan(launch(model=str(tmp_path)))) == []


@pytest.mark.parametrize("model", ["/absent/model", "./absent", "~/absent"])
def test_a_path_that_is_not_there_is_never_looked_up_on_the_hub(model, monkeypatch):
    monkeypatch.setattr(preflight, "ask_hub", lambda launch: pytest.fail("asked the hub"))
    (problem,) = preflight.check_models(plan(launch(model=model)))
    assert model in problem


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("denied", "HF_TOKEN"),
        ("unknown", "spelling"),
        ("offline", "HF_HUB_OFFLINE"),
        ("unreachable", "network"),
        ("cached", None),
        ("reachable", None),
        ("", None),  # no huggingface_hub there: sglang itself will tell
    ],
)
def test_the_hubs_answer_becomes_a_remedy_asked_once(monkeypatch, answer, says):
    asked = []
    monkeypatch.setattr(preflight, "ask_hub", lambda launch: asked.append(launch) or answer)
    problems = preflight.check_models(plan(launch(), launch(label="B")))
    assert len(asked) == 1
    assert bool(problems) == bool(says)
    assert not says or (says in problems[0] and "--dummy-weights" in problems[0])


# traces


@pytest.fixture
def whole() -> bytes:
    return gzip.compress(os.urandom(3 << 20))  # more than one read


def test_a_whole_trace_is_told_from_one_still_being_written(tmp_path, whole):
    path = tmp_path / "1-TP-0-PP-0.trace.json.gz"
    pieces = {
        "whole": (whole, True),
        "two members": (whole + gzip.compress(b"{}"), True),
        "empty": (b"", False),
        "header only": (whole[:10], False),
        "half": (whole[: len(whole) // 2], False),
        "check sum cut": (whole[:-1], False),
        "damaged": (whole[:-8] + b"\0" * 8, False),
        "not gzip": (b'{"traceEvents": []}', False),
    }
    found = {}
    for name, (data, _) in pieces.items():
        path.write_bytes(data)
        found[name] = is_whole_gzip(path)
    assert found == {name: expected for name, (_, expected) in pieces.items()}
    assert not is_whole_gzip(tmp_path / "absent")


def test_a_growing_file_is_looked_at_again_and_a_whole_one_is_not(tmp_path, whole, monkeypatch):
    files = TraceFiles(tmp_path)
    path = tmp_path / "1-TP-0-PP-0.trace.json.gz"
    path.write_bytes(whole[:1000])
    (tmp_path / "1-TP-0-PP-1.trace.json").write_bytes(whole)  # another name
    assert files.whole() == []
    path.write_bytes(whole)
    assert files.whole() == [path]
    monkeypatch.setattr(
        "repro_pp_graphs.run.folder.trace_files.is_whole_gzip",
        lambda path: pytest.fail("read again"),
    )
    assert files.whole() == [path]


# arms

GRAPH, EAGER = DecodeLine(0, 32, True), DecodeLine(0, 24, False)
ALL_RANKS = {"0": 24, "1": 24, "2": 24, "3": 24}
NONE_AT_ALL = {"0": 0, "1": 0, "2": 0, "3": 0}


def test_prefills_with_a_graph_are_counted_by_the_lines_that_say_so():
    line = "[2026-11-27 23:23:39 PP0] {} batch, #new-seq: 1, #running-req: 0, {} graph: {}, input"
    said = [("Prefill", "cuda", True), ("Prefill", "cuda", False), ("Decode", "cuda", True)]
    text = "\n".join(line.format(*each) for each in said)
    assert prefills_with_graph(f"{text}\n[.. PP0] Prefill batch. #new-seq: 1, #new-token: 2") == 1
    state, _ = arm_check.check(text, None, launch(expects_graphs=False))
    assert (state.decode_lines, state.prefills_with_graph) == (1, 1)
    older = launch(
        expects_graphs=True, sglang_version="0.5.6.post2"
    )  # whose line it is, is not known
    assert arm_check.check(text, None, older)[0].prefills_with_graph == 0


def test_graph_launches_of_prefills_are_no_objection_to_an_arm_without_decode_graphs():
    off = launch(expects_graphs=False)
    assert objections(observe([EAGER], {"0": 5}, prefills=3), off) == []
    assert objections(observe([EAGER, GRAPH], {"0": 5}, prefills=3), off) != []


def test_a_logs_decode_lines_are_counted():
    lines = [GRAPH, EAGER, DecodeLine(3, 17, False)]
    assert observe(lines, None) == GraphState(3, 1, 24, None)
    assert observe([], {"0": 1}) == GraphState(0, 0, 0, {"0": 1})


@pytest.mark.parametrize(
    ("expects", "lines", "launches", "says"),
    [
        (True, [GRAPH] * 3, ALL_RANKS, []),
        (True, [GRAPH] * 3, None, []),
        (True, [], ALL_RANKS, []),
        (False, [EAGER] * 3, NONE_AT_ALL, []),
        (False, [EAGER] * 3, None, []),
        (None, [EAGER, GRAPH], {"0": 1}, []),
        (True, [GRAPH, EAGER, EAGER], ALL_RANKS, ["2 of 3", "24 requests", "batch is 64"]),
        (True, [GRAPH], {**ALL_RANKS, "2": 0}, ["rank 2"]),
        (True, [GRAPH], NONE_AT_ALL, ["rank 0, 1, 2, 3"]),
        (True, [GRAPH], {}, ["rank any"]),
        (False, [EAGER, GRAPH], NONE_AT_ALL, ["1 decode lines replayed"]),
        (False, [EAGER], {**NONE_AT_ALL, "3": 5}, ["cudaGraphLaunch", "5"]),
        (True, [], None, ["not seen"]),
        (False, [], None, ["not seen"]),
    ],
)
def test_an_arm_that_is_not_what_it_claims_is_told(expects, lines, launches, says):
    found = objections(observe(lines, launches), launch(expects_graphs=expects))
    assert len(found) == (1 if says else 0), found
    assert all(text in found[0] for text in says)


# a process


def test_a_zombie_is_not_alive():
    assert process.alive(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        wait_until(lambda: not process.alive(child.pid))  # ended, not yet waited for
        assert child.returncode is None
    assert not process.alive(child.pid)

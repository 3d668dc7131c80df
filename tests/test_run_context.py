"""A model's context: prompts and answers must fit into it, also those of the profiled load."""

from __future__ import annotations

import pytest
from gpu_plans import asking

from repro_pp_graphs.run.checks import preflight
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run_record import Load


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

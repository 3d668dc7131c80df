"""The prompts that the load client sends, and when."""

import pytest

from repro_pp_graphs.client.load import streams_to_send
from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.prompts import Prompts


def test_arrivals_are_poisson_at_the_asked_rate_and_reproducible():
    options = parse_options(["--request-rate", "100", "--input-len", "3"])

    def due():
        streams = streams_to_send(options, "m", Prompts(options), 0, 2000)
        return [stream.due_offset_ns for stream in streams]

    offsets = due()
    assert offsets == due()
    assert offsets[0] == 0
    assert offsets[-1] / 1999 == pytest.approx(10e6, rel=0.1)


def test_synthetic_prompts_have_the_asked_length_and_differ():
    options = parse_options(["--input-len", "50"])
    prompts = Prompts(options)
    texts = [prompts[number] for number in (-2, -1, 0, 1)]
    assert {len(text.split()) for text in texts} == {50}
    assert len(set(texts)) == 4


def test_without_any_choice_the_file_beside_the_client_is_read_and_without_it_none(tmp_path):
    options = parse_options([], tmp_path)
    assert (options.prompts, options.input_len) == (None, 64)
    prompts = Prompts(options)
    assert (len(prompts), len(prompts[0].split())) == (0, 64)
    (tmp_path / "prompts.txt").write_text("one\n")
    assert Prompts(parse_options([], tmp_path))[0] == "one"
    assert len(Prompts(parse_options(["--input-len", "7"], tmp_path))[0].split()) == 7
    (tmp_path / "own.txt").write_text("own\n")
    assert Prompts(parse_options(["--prompts", f"{tmp_path}/own.txt"], tmp_path))[0] == "own"

"""The model of a run: a folder that is whole, or one that the hub has."""

from __future__ import annotations

import pytest
from gpu_plans import launch
from made_up_run import plan

from repro_pp_graphs.run.checks import preflight


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

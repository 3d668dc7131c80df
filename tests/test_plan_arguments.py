"""The arguments of a launch: from which file or option they come, and which are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import made_up_run
import pytest
from plan_harness import BASE, ON, plan_of, value

from repro_pp_graphs import run_record
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.case.argfile import ArgFileError
from repro_pp_graphs.server.case.flags import FlagError


def test_a_wrong_argument_is_named_with_its_file_and_line(tmp_path):
    with pytest.raises(FlagError, match=r"^server_args_odd.txt:3: --no-such-arg: sglang 0.5.21 "):
        plan_of(tmp_path, graphs_on=ON, odd="# label: O\n\n--no-such-arg 1\n")
    with pytest.raises(FlagError, match=r"^server_args_base.txt:5: --no-such-arg: sglang "):
        plan_of(tmp_path, base=f"{BASE}--no-such-arg\n")


def test_a_misspelt_argument_stops_the_plan(tmp_path):
    with pytest.raises(FlagError, match="did you mean --cuda-graph-max-bs"):
        plan_of(tmp_path, mine="--cuda-graph-maxbs 64")


@pytest.mark.parametrize("text", ["--cuda-graph-bs 1 2 large", "--cuda-graph-bs", "--pp-size x"])
def test_a_size_that_is_no_number_is_refused_in_one_line(tmp_path, text):
    with pytest.raises((PlanError, ArgFileError), match=text.split()[0]):
        plan_of(tmp_path, mine=text)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", ""])
def test_a_port_in_a_file_that_is_none_is_refused(tmp_path, port):
    with pytest.raises((PlanError, ArgFileError), match="--port"):
        plan_of(tmp_path, mine=f"--port {port}")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:30000"),
        ("--host 0.0.0.0", "http://127.0.0.1:30000"),
        ("--host ::1", "http://[::1]:30000"),
        ("--host 10.0.0.7", "http://10.0.0.7:30000"),
    ],
)
def test_a_server_is_asked_at_its_host(tmp_path, host, url):
    (launch,) = plan_of(tmp_path, mine=host).launches
    assert launch.base_url == url
    run_record.save(tmp_path, made_up_run.plan(launch))
    assert run_record.load(tmp_path).launches == [launch]


def test_options_win_over_both_argument_files(tmp_path):
    argv = ("--pp-size", "2", "--port", "31000", "--model", "/m/8B", "--layers", "4")
    (launch,) = plan_of(tmp_path, *argv, mine="--pp-size 8\n--port 1\n--model x\n").launches
    assert (launch.pp_size, launch.port, launch.model) == (2, 31000, "/m/8B")
    assert value(launch, "--port") == "31000"
    assert json.loads(value(launch, "--json-model-override-args")) == {"num_hidden_layers": 4}


def test_a_case_may_name_its_own_interpreter(tmp_path):
    plan = plan_of(tmp_path, new="", old="PYTHON=/venvs/0.5.6/bin/python\n")
    assert [launch.python for launch in plan.launches] == [
        "/usr/bin/python3",
        "/venvs/0.5.6/bin/python",
    ]
    assert plan.launches[1].argv[0] == "/venvs/0.5.6/bin/python"
    assert "PYTHON" not in plan.launches[1].env


def test_without_sglang_a_dry_run_still_has_a_plan(tmp_path):
    launch = plan_of(tmp_path, release=None).launches[0]
    assert launch.sglang_version == "unknown"
    assert value(launch, "--cuda-graph-max-bs") == "64"


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
    ],
)
def test_dummy_weights_take_the_models_shape(tmp_path, model, shape):
    launch = plan_of(tmp_path, "--dummy-weights", "--model", model).launches[0]
    assert Path(launch.model).name == shape
    assert value(launch, "--load-format") == "dummy"
    assert launch.env["HF_HUB_OFFLINE"] == "1"


def test_dummy_weights_use_a_given_folders_config(tmp_path):
    folder = tmp_path / "llama-3.1-8b-mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    launch = plan_of(tmp_path, "--dummy-weights", "--model", str(folder)).launches[0]
    assert launch.model == str(folder) and value(launch, "--load-format") == "dummy"


def test_dummy_weights_of_an_unknown_shape_are_refused(tmp_path):
    with pytest.raises(PlanError, match=r"some/model.*llama-3\.1-8b"):
        plan_of(tmp_path, "--dummy-weights", "--model", "some/model")

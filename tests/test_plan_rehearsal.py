"""A rehearsal on a CPU: what it replaces of the arguments, which it says, and its small load."""

from __future__ import annotations

from pathlib import Path

from plan_harness import BASE, ON, plan_of, value

from repro_pp_graphs.run import overview


def test_on_a_cpu_the_overlay_yields_to_the_case_and_needs_no_gpu_argument(tmp_path):
    plan = plan_of(tmp_path, count=0, graphs_on=ON, more="--max-total-tokens 4096\n")
    one, other = plan.launches
    assert value(one, "--device") == "cpu" and value(one, "--load-format") == "dummy"
    assert value(one, "--max-total-tokens") != "4096" == value(other, "--max-total-tokens")
    assert one.expects_graphs is None
    assert Path(one.model).name == "tiny"
    assert one.env["REPRO_SHIMS"].split(",")[0] == "cpu"
    assert one.argv[1:3] == ["-m", "repro_pp_graphs.server.launch"]
    # one core or more for each of the two ranks, or newer releases refuse to start
    assert len(one.env["SGLANG_CPU_OMP_THREADS_BIND"].split("|")) == 2


def test_a_rehearsals_load_is_small_unless_it_is_given(tmp_path):
    full, small = plan_of(tmp_path), plan_of(tmp_path, count=0)
    assert small.batch < full.batch and small.max_new_tokens < full.max_new_tokens
    argv = ("--batch", "3", "--max-new-tokens", "5", "--profile-steps", "7")
    given = plan_of(tmp_path, *argv, count=0)
    assert (given.batch, given.max_new_tokens, given.profile_steps) == (3, 5, 7)


OVERLAID = f"{BASE}--attention-backend nonsense\n--load-format dummy\nOMP_NUM_THREADS=4\n"


def test_a_rehearsal_says_which_arguments_it_replaces(tmp_path):
    plan = plan_of(tmp_path, "--cpu", base=OVERLAID)
    (said,) = [text for text in overview.notes(plan) if "replaces" in text]
    assert said == (
        "of server_args_base.txt a rehearsal replaces: --attention-backend torch_native (not "
        "nonsense), OMP_NUM_THREADS 1 (not 4); what a case's own file says stays"
    )
    assert not [text for text in overview.notes(plan_of(tmp_path)) if "replaces" in text]


def test_what_a_cases_own_file_says_is_not_called_replaced(tmp_path):
    cases = {"one": "# label: A\n--attention-backend nonsense\n", "two": "# label: B\n"}
    plan = plan_of(tmp_path, "--cpu", base=f"{BASE}--attention-backend triton\n", **cases)
    assert value(plan.launches[0], "--attention-backend") == "nonsense"
    (said,) = [text for text in overview.notes(plan) if "replaces" in text]
    assert said.startswith("two: ") and "torch_native (not triton)" in said


def test_nothing_is_called_replaced_where_the_base_file_has_nothing_else(tmp_path):
    assert not [text for text in overview.notes(plan_of(tmp_path, "--cpu")) if "replaces" in text]

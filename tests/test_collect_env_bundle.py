"""collect_env.sh --bundle: what is in the archive, and what is not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_runs
from fake_sglang.harness import CHECKOUT, Harness
from planted_secrets import SECRETS
from programs import ran

from repro_pp_graphs.bundle import contents, issue, resolved_arguments
from repro_pp_graphs.bundle.__main__ import masked_after, to_look_at
from repro_pp_graphs.environment.masking import Masker
from repro_pp_graphs.environment.secret_words import MASK
from repro_pp_graphs.report.page.embedding import CLOSES, OPENS, embedded

A, B = "CASE_A_decode_graphs", "CASE_B_no_graphs"


pytestmark = pytest.mark.launches


SECTIONS = ["Checklist", "Describe the bug", "Reproduction", "Environment"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a finished A/B run left."""
    root = tmp_path_factory.mktemp("finished")
    with Harness(root / "r", gpus=[(81559, 3)] * 2) as made:
        shutil.copy2(CHECKOUT / "collect_env.sh", made.root)
        done = made.run("--pp-size", "2", "--dummy-weights", "--layers", "2")
        assert done.status == 0, done.lines
        yield made.out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def bundle(run: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(CHECKOUT / "collect_env.sh"), "--bundle", str(run), *options]
    if "--python" not in options:
        command += ["--python", sys.executable]
    env = {"PATH": "/usr/bin:/bin", "REPRO_COLLECT_PATIENCE": "1000", **variables}
    return ran(command, env=env)


def unpacked(run: Path, *options: str, **variables: str) -> dict[str, str]:
    """The files of the bundle of a run by name, with what was printed as `printed`."""
    done = bundle(run, *options, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    with tarfile.open(run / "logs" / "issue_bundle.tar.gz") as tar:
        members = tar.getmembers()
        assert {(each.uname, each.gname, each.uid) for each in members} == {("", "", 0)}
        files = {each.name: tar.extractfile(each) for each in members}
        texts = {
            name.removeprefix("issue_bundle/"): file.read() for name, file in files.items() if file
        }
    return {name: text.decode() for name, text in texts.items()} | {"printed": done.stdout}


def test_a_bundle_holds_the_run_but_not_its_traces(run: Path) -> None:
    found = unpacked(run)
    wanted = {"run.json", "summary.json", "env.txt", "env.json", "env_after.txt", "env_after.json"}
    for label in (A, B):
        wanted |= {
            f"{label}_{part}"
            for part in (
                "server.log", "client.log", "client.json", "analysis.json", "analysis.txt",
                "launch.json", "server_command.sh",
            )
        }  # fmt: skip
    assert wanted | {"traces.txt", "issue.md"} <= set(found)
    assert f"trace/{A}_chrome_trace.json" in found["traces.txt"]
    assert not [name for name in found if "chrome_trace" in name]
    client = json.loads(found[f"{A}_client.json"])
    assert client["summary"] == json.loads((run / f"logs/{A}_client.json").read_text())["summary"]


def test_what_is_inside_is_printed_before_anyone_sends_it(run: Path) -> None:
    (run / "logs" / f"{A}_client.log").write_text("--api-key plugh-plugh-1\nHF_TOKEN=xyzzy\n")
    found = unpacked(run)
    rows = re.findall(r"^ *(\d+) +(\d+) +(\d+)  (\S+)$", found["printed"], re.M)
    assert {name: int(size) for size, _, _, name in rows} == {
        name: len(text) for name, text in found.items() if name != "printed"
    }
    assert {name: masked for _, masked, _, name in rows}[f"{A}_client.log"] == "2"
    assert "masked after: --api-key, HF_TOKEN\n" in found["printed"]
    assert str(run / "logs" / "issue_bundle.tar.gz") in found["printed"]
    assert "Nothing has been sent" in found["printed"]
    assert found["issue.md"] in found["printed"]
    listing = found["printed"].split(found["issue.md"])[1]
    paths = [line for line in listing.splitlines() if str(run) in line]
    assert max(len(line) for line in listing.splitlines() if line not in paths) <= 80


def test_the_issue_text_has_the_sections_of_sglangs_form(run: Path) -> None:
    text = unpacked(run)["issue.md"]
    assert re.findall(r"^### (.+)$", text, re.M) == SECTIONS
    parts = dict(zip(SECTIONS, re.split(r"^### .+$", text, flags=re.M)[1:], strict=True))
    assert parts["Checklist"].count("- [ ] ") == 5
    assert "TTFT median ms" in parts["Describe the bug"]
    assert "\n- TTFT: first token - request sent" in parts["Describe the bug"]
    assert "| disable_cuda_graph | false | true |" in parts["Describe the bug"]
    assert "--disable-cuda-graph" in parts["Reproduction"]
    assert "client_benchmark.py --base-url http://127.0.0.1:" in parts["Reproduction"]
    assert "python -m sglang.launch_server" in parts["Reproduction"]
    assert "repro_pp_graphs.server.launch" not in parts["Reproduction"]
    assert "python -m sglang.bench_serving" in parts["Reproduction"]
    assert re.search(r"^kernel  ", parts["Environment"], re.M)
    assert (run / "logs" / "issue.md").read_text() == text
    assert text.count("<details>") == text.count("</details>")
    assert len(re.findall("^```", text, re.M)) % 2 == 0


def test_of_other_peoples_servers_the_issue_text_has_the_number_alone(tmp_path: Path) -> None:
    (tmp_path / "env.txt").write_text(
        "## Summary\n```text\nGPUs  none\n```\n\n"
        "## Software\n```text\nNCCL in process 8  2.1\n  /data/theirs/libnccl.so\n"
        "NCCL in the pip package  2.27\n```\n\n"
        "## Server\n```text\nprocess 77    python -m sglang.launch_server --model-path\n"
        "              /data/theirs --port 31999\nprocess 8     sglang::scheduler\n"
        "port 30000    nothing answers\n```\n"
    )
    text = "\n".join(issue.environment(tmp_path))
    assert "theirs" not in text and "31999" not in text and "process 8" not in text
    assert "NCCL in the pip package  2.27\n" in text
    assert (
        "2 sglang processes ran on this machine already (in env.txt)\n"
        "port 30000    nothing answers\n"
    ) in text


def test_a_word_before_a_mask_tells_what_was_masked() -> None:
    text = Masker({}).text(
        '{"api_key": "abc"} --hf-token abc --hf-token "a b" http://u:p@h\n'
        "[b'x-api-key', b'abc'] TOKEN=abc \\\"password\\\": \\\"abc\\\" ?q=salt_key%3Dabcabcabc"
    )
    found = masked_after(text)
    assert found[:3] == ["api_key", "--hf-token (2 x)", "no word"]
    assert {"x-api-key", "TOKEN", "password", "salt_key"} <= set(found)
    assert masked_after(" ".join(f"{name}_token={MASK}" for name in "abcdefghij"))[8:] == ["2 more"]


def test_a_failed_launch_shows_its_last_words(run: Path) -> None:
    path = run / "logs" / "summary.json"
    result = json.loads(path.read_text())
    result["launches"][0] |= {"status": "failed", "reason": "it died"}
    path.write_text(json.dumps(result))
    with (run / "logs" / f"{A}_server.log").open("a") as log:
        log.write("RuntimeError: NCCL error: unhandled system error\n")
    text = issue.text_of(run)
    assert "it died" in text
    assert "RuntimeError: NCCL error: unhandled system error" in text


def test_a_run_that_was_killed_before_its_summary_can_be_bundled(run: Path) -> None:
    (run / "logs" / "summary.json").unlink()
    (run / "logs" / "env.txt").unlink()
    text = issue.text_of(run)
    assert "TTFT median ms" in text
    assert "paste the output of `bash collect_env.sh`" in text


def test_the_issue_text_has_what_the_cases_were_started_with_that_differs(tmp_path: Path) -> None:
    run = report_runs.series(tmp_path / "run")

    def chunked(plan: dict[str, Any]) -> None:
        for launch in plan["launches"]:
            if launch["case"] == "graphs_off":
                launch["args"] += ["--chunked-prefill-size", "128", "--a-flag", "--sizes", "1", "2"]
            else:
                launch["args"] += ["--sizes", "1", "4"]

    report_runs.changed(run / "logs/run.json", chunked)
    rows = [line for line in issue.text_of(run).splitlines() if line.startswith("| ")]
    assert "| --chunked-prefill-size | - | 128 |" in rows
    assert "| --sizes | 1 4 | 1 2 |" in rows
    assert "| --a-flag | - | yes |" in rows and "| disable_cuda_graph | false | true |" in rows
    assert not any("--disable-cuda-graph" in row for row in rows), "once, as the server has it"
    assert not any(row.startswith("| --pp-size") for row in rows), "alike in both"


def test_long_values_that_differ_are_not_shown_alike() -> None:
    shown = resolved_arguments._cells([["a" * 80, "b"], ["a" * 80, "c"], None])
    assert len(set(shown)) == 3 and shown[2] == "-" and max(map(len, shown)) <= 90


def test_an_issue_text_too_long_for_github_leaves_the_environment_in_the_bundle(run: Path) -> None:
    with (run / "logs" / "env.txt").open("a") as env:
        env.write("x" * issue.MOST_CHARS)
    text = issue.text_of(run)
    assert len(text) < issue.MOST_CHARS
    assert "env.txt in the bundle" in text


def plant(run: Path) -> None:
    """Every kind of secret in every kind of file, as argument, as text and as value."""
    logs = run / "logs"
    texts = [text for text, _ in SECRETS.values()]
    for name in (f"{A}_server.log", f"{B}_client.log", "env.txt", f"{A}_server_command.sh"):
        with (logs / name).open("a") as file:
            file.writelines(f"[2026-01-01 10:00:00 PP0] {text}\n" for text in texts)
    for name in (f"{A}_client.json", "summary.json", "run.json", f"{B}_launch.json", "env.json"):
        found: dict[str, Any] = json.loads((logs / name).read_text())
        found["planted"] = texts
        found["nested"] = {"texts": [{"text": text} for text in texts]}
        (logs / name).write_text(json.dumps(found))
    (run / "report.md").write_text("\n\n".join(texts))


def test_no_secret_planted_in_a_run_is_in_its_bundle(run: Path) -> None:
    plant(run)
    found = unpacked(run, "--no-redact")
    leaks = [
        (name, kind)
        for name, text in found.items()
        for kind, (_, secret) in SECRETS.items()
        if secret in text
    ]
    assert leaks == []
    for name in (f"{A}_server.log", "report.md", "summary.json", "run.json"):
        assert found[name].count("<masked>") > 20, name


def test_every_json_of_a_bundle_parses_with_secrets_in_any_place(run: Path) -> None:
    logs = run / "logs"
    odd = {
        "hf_token": 123456789,
        "api_key": "plugh",
        "numbers": {"session_key": 987654321, "password": 1.5e300, "pin": 4444, "n": [1, 2.5]},
        "passwords": ["xyzzy-1", "xyzzy-2", 3333333],
        "auth": {"user": "a", "jwt": None, "on": True},
        "args": [
            "python",
            "--api-key",
            "xyzzy 3",
            "--tp",
            "4",
            "--password",
            12345678,
            "-u",
            "b:c",
        ],
        "text": 'quotes " \\" and \\ and \n lines: password:\n  xyzzy-4',
        "https://bob:xyzzy-5@host": 1,
        "": [[], {}, "", None, "naïve 词", -1.5e-9],
    }
    names = [path.name for path in logs.glob("*.json")]
    for name in names:
        found: dict[str, Any] = json.loads((logs / name).read_text())
        (logs / name).write_text(json.dumps(found | odd))
    plant(run)
    found_in = unpacked(run)
    for name in names:
        value = json.loads(found_in[name])
        masked = "<masked>"
        assert (value["hf_token"], value["api_key"]) == (masked, masked)
        numbers = {"session_key": masked, "password": masked, "pin": masked, "n": [1, 2.5]}
        assert value["numbers"] == numbers
        assert value["passwords"] == [masked] * 3
        assert value["auth"] == {"user": "a", "jwt": None, "on": True}
        options = ["python", "--api-key", masked, "--tp", "4", "--password", masked, "-u"]
        assert value["args"] == [*options, f"b:{masked}"]
        assert value["text"].startswith('quotes " \\" and \\ and \n lines: password:')
        assert value["https://<masked>@host"] == 1
        assert value[""] == [[], {}, "", None, "na?ve ?", -1.5e-9] or value[""][4] == "naïve 词"
        assert "xyzzy" not in found_in[name]


def test_what_the_arguments_call_a_secret_is_masked_where_it_has_no_name(run: Path) -> None:
    logs = run / "logs"
    command = logs / f"{A}_server_command.sh"
    command.write_text(
        command.read_text().replace("--pp-size", "--api-key 'two words/1' --pp-size")
        + "export PROXY_PASSWORD=only-known-here\n"
    )
    plan = json.loads((logs / "run.json").read_text())
    plan["launches"][1]["args"] += ["--admin-api-key", "known-from-the-plan"]
    (logs / "run.json").write_text(json.dumps(plan))
    with (logs / f"{B}_server.log").open("a") as log:
        log.write(
            '401 for two words/1 and two%20words%2F1\nbad only-known-here "known-from-the-plan"\n'
        )
    found = "\n".join(unpacked(run).values())
    for secret in ("two words/1", "two%20words%2F1", "only-known-here", "known-from-the-plan"):
        assert secret not in found
    assert "401 for <masked> and <masked>" in found


def test_people_are_hidden_unless_asked_for(run: Path) -> None:
    with (run / "logs" / f"{A}_server.log").open("a") as log:
        log.write("/home/bob/models of carol, node-of-carol:77:99 [0] NCCL INFO up\n")
    text = unpacked(run, USER="carol", HOME="/data/carol")[f"{A}_server.log"]
    assert "/home/<user>/models of <user>, " in text
    shown = unpacked(run, "--no-redact", USER="carol")[f"{A}_server.log"]
    assert "/home/bob/models of carol" in shown


def test_hosts_that_the_records_of_a_run_name_are_hidden_on_another_machine_too(run: Path) -> None:
    logs = run / "logs"
    plan = json.loads((logs / "run.json").read_text())
    plan["machine"]["host"] = "trainer-of-carol"
    (logs / "run.json").write_text(json.dumps(plan))
    analysis = json.loads((logs / f"{A}_analysis.json").read_text())
    analysis["hosts"] = ["trainer-of-carol", "q7", "10.1.2.3"]
    (logs / f"{A}_analysis.json").write_text(json.dumps(analysis))
    with (logs / f"{A}_server.log").open("a") as log:
        log.write("trainer-of-carol is up, trainer-of-carols is not; q7 stays in a text\n")
    found = unpacked(run)
    assert not [name for name, text in found.items() if re.search(r"of-carol\b", text)]
    labels = json.loads(found[f"{A}_analysis.json"])["hosts"]
    host = json.loads(found["run.json"])["machine"]["host"]
    assert labels[0] == host and re.fullmatch("<host( [0-9]+)?>", host)
    assert re.fullmatch("<host [0-9]+>", labels[1]) and labels[1] != host
    assert labels[2] == "10.1.2.3"
    assert f"{host} is up, trainer-of-carols is not; q7 stays in a text" in found[f"{A}_server.log"]
    shown = unpacked(run, "--no-redact")
    assert json.loads(shown[f"{A}_analysis.json"])["hosts"][:2] == ["trainer-of-carol", "q7"]


def test_what_no_mask_is_for_is_named_with_its_files() -> None:
    def said(text: str) -> str:
        return " ".join(" ".join(to_look_at([contents.Item("env.txt", text, "")])).split())

    assert said("process 77    python -m sglang.launch_server --model-path /data/x") == (
        "look at: command lines of other sglang processes: 1 in env.txt"
    )
    assert "IP addresses (or versions of four numbers): 2 (8.8.4.4, 10.0.0.7) in env.txt" in said(
        "SGLANG_HOST_IP=8.8.4.4 10.0.0.7 127.0.0.1:30000 8.8.4.4"
    )
    assert "hosts in web addresses: 1 (proxy.corp) in env.txt" in said(
        "http://proxy.corp:3128 http://<host>/"
    )
    assert said("process of 127.0.0.1, 0.5.16, http://127.0.0.1:30000/x, <address>") == ""


def test_hosts_are_named_once_over_all_files_and_at_most_a_few() -> None:
    texts = ("https://fastapi.example/x", "https://fastapi.example/y http://own.lan/", "http://c")
    items = [contents.Item(f"{n}.log", text, "") for n, text in enumerate(texts)]
    said = " ".join(" ".join(to_look_at(items)).split())
    assert "web addresses: 3 (fastapi.example, own.lan, c) in 0.log, 1.log, 2.log" in said
    items.append(contents.Item("9.log", "http://d http://e", ""))
    said = " ".join(" ".join(to_look_at(items)).split())
    assert "5 (fastapi.example, own.lan, c and 2 more) in 0.log, 1.log, 2.log and 1 more" in said
    logged = contents.Item("a.log", r"http://own.lan\n http://own.lan. http://own.lan,x", "")
    assert "web addresses: 1 (own.lan) in a.log" in " ".join(" ".join(to_look_at([logged])).split())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "name the folder of the run's --out, --bundle FOLDER"),
        (["--json"], "--json and --bundle do not go together"),
        (["--python", "/bin/false"], "needs Python 3.10"),
        (["--python", "no-such-python"], "no such program"),
    ],
)
def test_what_cannot_be_bundled_is_refused_in_one_line(
    run: Path, options: list[str], complaint: str
) -> None:
    if not options:
        (run / "logs" / "run.json").unlink()
    done = bundle(run, *options)
    assert (done.returncode, done.stdout, done.stderr.count("collect_env.sh: ")) == (2, "", 1)
    assert complaint in " ".join(done.stderr.split())
    assert not (run / "logs" / "issue_bundle.tar.gz").exists()


def test_a_runs_own_logs_folder_names_the_run_too(run: Path) -> None:
    done = bundle(run / "logs")
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "logs" / "issue_bundle.tar.gz").exists()


def test_a_broken_record_of_a_run_ends_in_one_line(run: Path) -> None:
    (run / "logs" / "run.json").write_text("{")
    done = bundle(run)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(run) in done.stderr


def test_a_rehearsal_has_nothing_to_report(tmp_path: Path) -> None:
    run = report_runs.rehearsal(tmp_path / "run")
    first = issue.text_of(run).splitlines()[0]
    assert "Nothing here to report to sglang" in first
    shutil.rmtree(run)
    assert "Nothing here to report" not in issue.text_of(report_runs.series(run))


@pytest.mark.parametrize(("status", "quoted"), [("failed", True), ("interrupted", False)])
def test_the_end_of_a_log_is_quoted_unless_the_run_ended_that_server(
    tmp_path: Path, status: str, quoted: bool
) -> None:
    run = report_runs.series(tmp_path / "run")
    (run / "logs" / f"{A}_server.log").write_text(
        "Traceback (most recent call last):\nOSError: x\n"
    )
    report_runs.changed(run / "logs" / f"{A}_launch.json", lambda one: one.update(status=status))
    text = issue.text_of(run)
    assert (f"The log of {A} says at its end" in text and "OSError: x" in text) == quoted


def test_the_finding_stands_in_the_first_lines(tmp_path: Path) -> None:
    run = report_runs.traced(tmp_path / "run")
    text = "A: seen whole.\n\nno more"
    for label in (A, B):
        said = "2 PP ranks.\nToken return PP1 -> PP0: the send holds PP1's host\n  for 1 ms.\n"
        (run / "logs" / f"{label}_analysis.txt").write_text(f"{said}\n{text}")
    told = issue.text_of(run).partition("### Describe the bug\n")[2].splitlines()[:8]
    wanted = f"- {A}: Token return PP1 -> PP0: the send holds PP1's host for 1 ms."
    assert wanted in told
    assert told[1].startswith("**#10865: CANNOT TELL.** ")


def test_reports_and_summary_go_along_masked_and_the_page_still_runs(run: Path) -> None:
    logs = run / "logs"
    secret = "hf_QmVyZ2FtYXNjaGluZW5iYXVlcg"
    (logs / "report.md").write_text(f"# {secret}\n")
    script, style = "<script>go(1)</script>", "<style>p{}</style>"
    policy = '<meta http-equiv="Content-Security-Policy" content="script-src \'sha256-AbCdEf\'">'
    facts = {"names": [secret, "</script>"], "numbers": [1, 2.5]}
    page = f"{policy}{style}<p>{secret}</p>{OPENS}{embedded(facts)}{CLOSES}{script}"
    (logs / "report.html").write_text(page)
    found = unpacked(run)
    assert {"report.md", "report.html", "summary.json"} <= set(found)
    assert secret not in "".join(found.values())
    html = found["report.html"]
    assert policy in html and style in html and html.endswith(script)
    told = json.loads(html.partition(OPENS)[2].partition(CLOSES)[0])
    assert told["numbers"] == [1, 2.5] and told["names"][1] == "</script>"

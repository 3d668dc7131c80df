"""logs/README.txt: what each file of a run is."""

from __future__ import annotations

from repro_pp_graphs.terminal import wrapped

HEAD = (
    "What run_repro.sh leaves. Look at report.html first. LABEL is the name of a launch: that of "
    "its case, from the second round on with _r2, _r3, ... behind it. `python -m repro_pp_graphs "
    "open FILE` shows a merged trace, `... compare DIR1 DIR2` two runs."
)
# a name, LABEL for a launch's label, * for a rank's: what it is
LOGS = {
    "summary.json": "every launch with its status, metrics and warnings; the verdict. For scripts",
    "report.md, report.html": "the same for people, and for an issue",
    "LABEL_client.json": "what the load client measured: summary, and every token's arrival",
    "LABEL_client.log": "the same as a table",
    "LABEL_server.log": "the server's own output, all ranks",
    "LABEL_server_nodeN.log": "the same of its process on node N, 1 or higher",
    "LABEL_server_command.sh": "starts that server by hand; Ctrl-C ends it",
    "LABEL_launch.json": "how the launch went: status, reason, the server's resolved arguments",
    "LABEL_analysis.txt": "where a decode step's time goes, from the traces of its profile",
    "LABEL_analysis.json": "the same in numbers (docs/schemas)",
    "LABEL_timeline.json": "what the pictures of report.html draw of its trace",
    "LABEL_pp_clock.txt": "what a turn of each rank's host is made of (docs/pp_clock.md)",
    "LABEL_pp_clock.json": "the same in numbers",
    "LABEL_pp_clock_*.rows.gz": "what a rank wrote of it, a row a call and turn",
    "LABEL_profile_load.log": "the load under which it was profiled; no number is from it",
    "LABEL_probe.json, LABEL_probe.log, LABEL_probe_command.sh": "of --engine probe",
    "LABEL_hang.txt": "only of a server that hung: what its ranks were doing",
    "env.txt, env.json": "versions and settings of this machine before the first launch",
    "env_after.txt, env_after.json": "the same after the last one",
    "env_nodeN.txt, env_nodeN.json": "the same of node N, before the first launch",
    "nodes.json, nodes.sh": "the nodes of the Slurm allocation, and what differs between them",
    "run.json": "the plan, which --resume goes on with",
    "merge.log": "what merging and analysing the traces said",
}
TRACE = {
    "LABEL/": "a trace a rank, as torch's profiler wrote it",
    "LABEL_chrome_trace.json": "all ranks of a launch in one, for ui.perfetto.dev; from the second "
    "round on compressed (.json.gz), which it opens as well. The largest files here: they can be "
    "deleted and made again (python -m repro_pp_graphs merge trace/LABEL -o FILE.json.gz)",
    "*_vs_*_chrome_trace.json.gz": "the first two launches in one view, decode starts aligned",
    "LABEL.nsys-rep": "of --nsys, for Nsight Systems",
}


def lines() -> list[str]:
    """The text of logs/README.txt, at most 80 columns."""
    found = [*wrapped(HEAD), ""]
    for title, rows in (("logs/", LOGS), ("trace/", TRACE)):
        found.append(title)
        for names, text in rows.items():
            found += [f"  {names}", *wrapped(text, " " * 6)]
        found.append("")
    return found[:-1]

"""python extract.py WHEEL...: what the clock's hooks rely on in each release, as hooks.json.

For every sglang wheel named: the calls of event_loop_pp and of the loop's own methods in the order
of the text, the parameters of what the clock wraps, and the modules that use point_to_point_pyobj.
Read from the sources (ast); nothing is imported.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

MANAGERS = "sglang/srt/managers/"
CLASSES = {  # class -> the file that may define it
    "Scheduler": MANAGERS + "scheduler.py",
    "SchedulerPPMixin": MANAGERS + "scheduler_pp_mixin.py",
    "GroupCoordinator": "sglang/srt/distributed/parallel_state.py",
    "ModelRunner": "sglang/srt/model_executor/model_runner.py",
}
WRAPPED = {
    "Scheduler": (
        "recv_requests",
        "ingest_requests",
        "run_batch",
        "process_batch_result",
        "_pp_commit_comm_work",
        "_pp_commit_send_output_work_and_preprocess_output_tensors",
    ),
    "GroupCoordinator": ("send_tensor_dict", "recv_tensor_dict", "send_object", "recv_object"),
    "ModelRunner": ("forward",),
}
MESSAGES = "point_to_point_pyobj"


def dotted(node: ast.AST) -> str:
    """`self.pp_group.send_tensor_dict` of an expression; empty where it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def calls(method: ast.FunctionDef) -> list[str]:
    """The calls in a method, each once, in the order of the text."""
    found = [node for node in ast.walk(method) if isinstance(node, ast.Call)]
    found.sort(key=lambda node: (node.lineno, node.col_offset))
    return list(dict.fromkeys(name for node in found if (name := dotted(node.func))))


def relevant(names: list[str]) -> list[str]:
    """Those of the calls that a hook may stand on."""
    wanted = ("_pp_", "requests", "run_batch", "batch_result", "tensor_dict", "send_object")
    wanted += ("recv_object", MESSAGES, "synchronize", "torch.distributed.", "model_runner.forward")
    return [name for name in names if any(word in name for word in wanted)]


def parameters(method: ast.FunctionDef) -> list[str]:
    """Names of a function's parameters, in order."""
    return [argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)]


def functions(text: str, name: str) -> dict[str, ast.FunctionDef]:
    """The methods of a class by name; the functions of the module for no class."""
    bodies = [ast.parse(text).body]
    if name:
        bodies = [n.body for n in bodies[0] if isinstance(n, ast.ClassDef) and n.name == name]
    return {n.name: n for body in bodies for n in body if isinstance(n, ast.FunctionDef)}


def of_wheel(path: Path) -> dict[str, Any]:
    """One release: loop, parameters, users."""
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("sglang/srt/")]
        texts = {name: wheel.read(name).decode() for name in names if name.endswith(".py")}
    classes = {c: functions(texts.get(file, ""), c) for c, file in CLASSES.items()}
    scheduler = classes["SchedulerPPMixin"] | classes["Scheduler"]
    reached, todo = {}, ["event_loop_pp"]
    while todo:
        name = todo.pop(0)
        if name in reached or name not in scheduler:
            continue
        reached[name] = relevant(calls(scheduler[name]))
        inner = [each.removeprefix("self.") for each in calls(scheduler[name])]
        todo += [each for each in inner if each.startswith("_pp_")]
    users = [n for n, text in texts.items() if MESSAGES in text and f"def {MESSAGES}" not in text]
    plain = [text for text in texts.values() if f"def {MESSAGES}" in text]
    owners = {
        "Scheduler": scheduler,
        **{c: classes[c] for c in ("GroupCoordinator", "ModelRunner")},
    }
    defined = {
        f"{owner}.{name}": parameters(owners[owner][name])
        for owner, wrapped in WRAPPED.items()
        for name in wrapped
        if name in owners[owner]
    }
    for text in plain:
        defined[MESSAGES] = parameters(functions(text, "")[MESSAGES])
    for name in ("send_tensor_dict", "recv_tensor_dict", "send_object", "recv_object"):
        if name in classes["GroupCoordinator"]:
            reached[f"GroupCoordinator.{name}"] = relevant(calls(classes["GroupCoordinator"][name]))
    modules = sorted(n[:-3].replace("/", ".") for n in users if "from" in texts[n])
    return {"calls": reached, "parameters": defined, "users": modules}


def main(paths: list[str]) -> None:
    """Write hooks.json beside this file."""
    found = {}
    for path in map(Path, paths):
        version = path.name.split("-")[1]
        found[version] = of_wheel(path)
    ordered = dict(sorted(found.items(), key=lambda item: key(item[0])))
    lines = [f"{json.dumps(v)}: {json.dumps(facts)}" for v, facts in ordered.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (Path(__file__).parent / "hooks.json").write_text(text, encoding="utf-8")


def key(version: str) -> list[int]:
    """0.5.4.post3 -> [0, 5, 4, 3]"""
    return [int(part.removeprefix("post")) for part in version.split(".")]


if __name__ == "__main__":
    main(sys.argv[1:])

"""python extract.py WHEEL...: what the clock's hooks rely on in each release, as hooks.json.

Of every sglang wheel named: what event_loop_pp and the loop's own methods call, in the order of the
text, the parameters of what the clock wraps, the decorators of its classes and what else may refuse
another function in place of a method, the modules that use point_to_point_pyobj; releases of which
all that is the same stand together. Read from the sources (ast); nothing is imported.
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
    "SchedulerRequestReceiver": MANAGERS + "scheduler_components/request_receiver.py",
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
    "SchedulerRequestReceiver": ("recv_requests",),
}
P2P = tuple(
    f"{place}.{name}"
    for place in ("dist", "torch.distributed")
    for name in ("send", "recv", "isend", "irecv")
)
MESSAGES = "point_to_point_pyobj"


def dotted(node: ast.AST) -> str:
    """`self.pp_group.send_tensor_dict` of an expression; empty where it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def calls(method: ast.FunctionDef) -> list[str]:
    """The calls in a method, and torch's functions for messages that it names, each once, in the
    order of the text."""
    found = [(node, dotted(node.func)) for node in ast.walk(method) if isinstance(node, ast.Call)]
    found += [
        (n, dotted(n))
        for n in ast.walk(method)
        if isinstance(n, ast.Attribute) and dotted(n) in P2P
    ]
    found.sort(key=lambda pair: (pair[0].lineno, pair[0].col_offset))
    return list(dict.fromkeys(name for _, name in found if name))


def relevant(names: list[str]) -> list[str]:
    """Those of the calls that a hook may stand on."""
    wanted = ("self._pp_", "recv_requests", "ingest_requests", "self.run_batch", "tensor_dict")
    wanted += ("process_batch_result", "send_object", "recv_object", MESSAGES, "event.synchronize")
    return [name for name in names if name in P2P or any(word in name for word in wanted)]


def parameters(method: ast.FunctionDef) -> list[str]:
    """Names of a function's parameters, in order."""
    return [argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)]


def functions(text: str, name: str) -> dict[str, ast.FunctionDef]:
    """The methods of a class by name; the functions of the module for no class."""
    bodies = [ast.parse(text).body]
    if name:
        bodies = [n.body for n in bodies[0] if isinstance(n, ast.ClassDef) and n.name == name]
    return {n.name: n for body in bodies for n in body if isinstance(n, ast.FunctionDef)}


def refusing(text: str, name: str) -> list[str]:
    """What of a class may refuse an attribute: decorators, __slots__, an own __setattr__."""
    (kind,) = (n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == name)
    found = [f"@{ast.unparse(each)}" for each in kind.decorator_list]
    for node in kind.body:
        named = getattr(node, "name", None) or ast.unparse(getattr(node, "targets", [node])[0])
        if named in ("__slots__", "__setattr__", "__getattribute__"):
            found.append(named)
    return found


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
    owners = classes | {"Scheduler": scheduler}
    defined = {
        f"{owner}.{name}": parameters(owners[owner][name])
        for owner, wrapped in WRAPPED.items()
        for name in wrapped
        if name in owners[owner]
    }
    for text in plain:
        defined[MESSAGES] = parameters(functions(text, "")[MESSAGES])
        reached[MESSAGES] = relevant(calls(functions(text, "")[MESSAGES]))
    for name in ("send_tensor_dict", "recv_tensor_dict", "send_object", "recv_object"):
        if name in classes["GroupCoordinator"]:
            reached[f"GroupCoordinator.{name}"] = relevant(calls(classes["GroupCoordinator"][name]))
    modules = sorted(n[:-3].replace("/", ".") for n in users if "from" in texts[n])
    classes_ = {c: refusing(texts[f], c) for c, f in CLASSES.items() if f in texts}
    return {"calls": reached, "parameters": defined, "classes": classes_, "users": modules}


def main(paths: list[str]) -> None:
    """Write hooks.json beside this file."""
    groups: dict[str, list[str]] = {}
    for path in sorted(map(Path, paths), key=lambda path: key(path.name.split("-")[1])):
        facts = json.dumps(of_wheel(path))
        groups.setdefault(facts, []).append(path.name.split("-")[1])
    lines = [f'{{"releases": {json.dumps(names)}, {facts[1:]}' for facts, names in groups.items()]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    (Path(__file__).parent / "hooks.json").write_text(text, encoding="utf-8")


def key(version: str) -> list[int]:
    """0.5.4.post3 -> [0, 5, 4, 3]"""
    return [int(part.removeprefix("post")) for part in version.split(".")]


if __name__ == "__main__":
    main(sys.argv[1:])

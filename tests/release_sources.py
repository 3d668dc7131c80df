"""Made-up sources of sglang releases: the pipeline loop and the group, of their shapes."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.server.release import pp_loop

# parameters after self, as the releases have them
PYOBJ = {"_pp_send_pyobj_to_next_stage": "data, async_send=False"}
OUTPUT = "next_first_rank_mb_id, mbs, last_rank_comm_queue, pp_outputs"
EXCHANGE = "next_first_rank_mb_id, next_mb_id, mbs, mb_metadata, last_rank_comm_queue, pp_outputs"
TENSORS = {
    "send_tensor_dict": "tensor_dict, dst=None, all_gather_group=None, async_send=False",
    "recv_tensor_dict": "src=None, all_gather_group=None",
}
GROUP_57 = {"send_object": "obj, dst, async_send=False", "recv_object": "src", **TENSORS}
GROUP_516 = {
    "send_object": "obj, dst, async_send=False, tag=0",
    "recv_object": "src, tag=0",
    **TENSORS,
}
SEND_DICT = {
    "0.5.7": "tensor_dict, async_send=True",
    "0.5.10.post1": "tensor_dict, async_send=True, msg_type='default'",
    "0.5.16": "tensor_dict, async_send=True, msg_type='default'",
    "0.5.19": "tensor_dict, async_send=True, msg_type='default'",
    "0.5.21": "tensor_dict, async_send=True, msg_type='default', ready_event=None",
    "0.5.23": "tensor_dict, async_send=True, msg_type='default', ready_event=None",
}
COMMIT = dict.fromkeys(("0.5.21", "0.5.23"), "work, fence_next_forward=False")
PROXY = {"0.5.21": "_pp_send_proxy_to_next_stage", "0.5.23": "_pp_send_proxy_to_next_stage"}


def method(name: str, parameters: str, *calls: str) -> str:
    body = "".join(f"        self.{call}()\n" for call in calls) or "        pass\n"
    return f"    def {name}({', '.join(filter(None, ['self', parameters]))}):\n{body}"


def loop_source(release: str) -> str:
    """A scheduler_pp_mixin.py with the shapes of that release."""
    commit = "_pp_commit_send_output_work_and_preprocess_output_tensors"
    turn = ["init_pp_loop_state", "_pp_commit_comm_work", "_pp_send_pyobj_to_next_stage"]
    turn += ["_pp_recv_proxy_tensors", commit, "_pp_launch_batch", commit]
    turn.append("_pp_process_batch_result")
    turn.append(PROXY.get(release, "_pp_send_dict_to_next_stage"))
    inner = ["            self._pp_send_output_to_next_stage()\n"]
    return "".join(
        [
            "class SchedulerPPMixin:\n",
            method("event_loop_pp", "", *turn),
            method("_pp_send_pyobj_to_next_stage", PYOBJ["_pp_send_pyobj_to_next_stage"]),
            method("_pp_commit_comm_work", COMMIT.get(release, "work")),
            method("_pp_launch_batch", "mb_id, pp_proxy_tensors, mb_metadata"),
            method("_pp_process_batch_result", "batch, output_result"),
            method("_pp_send_dict_to_next_stage", SEND_DICT[release]),
            method("_pp_send_output_to_next_stage", OUTPUT),
            f"    def _pp_send_recv_and_preprocess_output_tensors(self, {EXCHANGE}):\n",
            "        def _do_send():\n",
            *inner,
            "        _do_send()\n",
        ]
    )


def group_source(parameters: dict[str, str]) -> str:
    calls = {"send_tensor_dict": ["send_object"], "recv_tensor_dict": ["recv_object"]}
    methods = (method(name, given, *calls.get(name, [])) for name, given in parameters.items())
    return "class GroupCoordinator:\n" + "".join(methods)


def package(folder: Path, loop: str, group: str) -> Path:
    """An sglang of two source files."""
    place = folder / "sglang"
    for name, text in ((pp_loop.LOOP_FILE, loop), (pp_loop.GROUP_FILE, group)):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for part in (place, place / "srt", place / "srt/managers"):
        (part / "__init__.py").touch()  # or an installed sglang would come first
    return place


def release_of(folder: Path, release: str) -> Path:
    old = release in ("0.5.7", "0.5.10.post1")
    return package(folder, loop_source(release), group_source(GROUP_57 if old else GROUP_516))

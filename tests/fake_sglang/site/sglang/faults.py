"""What a real server's log says when it dies at its start, by the fault's name."""

SCHEDULER = """\
[2026-11-23 21:16:19 PP1] Scheduler hit an exception: Traceback (most recent call last):
  File "/site-packages/sglang/srt/managers/scheduler.py", line 3415, in run_scheduler_process
    scheduler = Scheduler(
"""
SIGQUIT = """
[2026-11-23 21:16:20] Received sigquit from a child process. It usually means the child failed.
"""
DEATHS = {
    "oom": SCHEDULER
    + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a total "
    "capacity of 79.11 GiB of which 305.00 MiB is free.\n" + SIGQUIT,
    "kv_cache": SCHEDULER
    + "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
    "Current value: self.server_args.mem_fraction_static=0.1\n" + SIGQUIT,
    "capture": SCHEDULER
    + "Exception: Capture cuda graph failed: CUDA error: operation failed due to a previous error "
    "during capture\nPossible solutions:\n1. set --mem-fraction-static to a smaller value "
    "(e.g., 0.8 or 0.7)\n" + SIGQUIT,
    "capture_oom": SCHEDULER
    + "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    "Possible solutions:\n1. set --mem-fraction-static to a smaller value\n" + SIGQUIT,
    "ordinal": SCHEDULER
    + "torch.AcceleratorError: CUDA error: invalid device ordinal\nGPU device may be out of range, "
    "do you have enough GPUs?\n" + SIGQUIT,
    "busy": SCHEDULER
    + "torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable\n"
    + SIGQUIT,
    "port": "[2026-11-23 21:16:20] ERROR:    [Errno 98] error while attempting to bind on address "
    "('127.0.0.1', 30000): address already in use\n",
    "gated": "huggingface_hub.errors.GatedRepoError: 401 Client Error.\n"
    "Cannot access gated repo for url https://hub/meta-llama/Llama-3.1-70B-Instruct/config.json.\n"
    "OSError: You are trying to access a gated repo.\n",
    "argument": "usage: launch_server.py [-h] --model-path MODEL_PATH\n"
    "launch_server.py: error: unrecognized arguments: --no-such-flag\n",
    "value": SCHEDULER + "ValueError: no such kind: 'chunky'\n" + SIGQUIT,
    "silent": "",
}

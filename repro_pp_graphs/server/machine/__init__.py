"""The machine that a server runs on: GPUs, CPUs, processes, ports."""

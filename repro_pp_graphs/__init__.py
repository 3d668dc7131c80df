"""A/B repro harness for sglang pipeline parallelism with decode CUDA graphs (issue #10865)."""

__version__ = "0.1.0"

"""Streaming load client for sglang and OpenAI-compatible servers; the entry is client_benchmark.py.

Needs the standard library and requests alone, and nothing else of repro_pp_graphs: modules import
one another relatively, so this folder also works beside client_benchmark.py on another machine.
"""

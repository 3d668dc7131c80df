"""The server under test: its arguments, launchers, named shims, log, health and profiler."""

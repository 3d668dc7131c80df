"""Trace files in, a case out: what each rank recorded."""

"""The commands on traces: analyze, merge, open."""

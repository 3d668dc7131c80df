"""The waits of a turn, timed by the ranks themselves: what is written, and read (docs/pp_clock.md).

hooks.py and device.py run in a server's ranks, for the shim server/shims/pp_clock. rows.py is what
they write: the file's form, written and read. All else is of after the server: collect.py reads the
rows, launch_facts.py makes facts of them (clock_record.py), lines.py and figures.py give them out.
"""

"""The tables of a run: for the terminal, and as rows of text for report.md and report.html."""

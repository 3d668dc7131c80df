"""What a run tells: summary.json, the side-by-side table, report.md and report.html."""

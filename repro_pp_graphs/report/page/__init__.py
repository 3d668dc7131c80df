"""report.md and report.html, both written from one content."""

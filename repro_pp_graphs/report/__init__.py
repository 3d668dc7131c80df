"""What a run tells: summary.json and the side-by-side table."""

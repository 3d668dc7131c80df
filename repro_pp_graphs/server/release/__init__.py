"""What a release of sglang has and does: asked of it, read in its sources, looked up."""

"""Do two arms differ, by how much, how sure: numbers of launches in, facts out."""

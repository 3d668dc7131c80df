"""A case's ranks, or two cases, as one Chrome trace."""

"""A case: its argument file, what a release calls those arguments, what it needs besides."""

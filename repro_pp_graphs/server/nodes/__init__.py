"""Servers on several nodes: the allocation, what a node sees, its files."""

"""One archive for an issue: what a run left, shortened to what helps, and a ready issue text.

All of it is masked as collect_env.sh masks what it prints. Private keys are masked before anything
is cut: half a key would match no pattern.
"""

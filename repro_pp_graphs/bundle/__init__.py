"""One archive for an issue: what a run left, cut to the telling parts, and a ready issue text.

All of it is masked as collect_env.sh masks what it prints; private keys before a cut could tear
them apart.
"""

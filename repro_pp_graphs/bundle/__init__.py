"""One archive for an issue: what a run left, cut to the telling parts, and a ready issue text.

Nothing here masks secrets, except whole private keys, which a cut could tear apart: bundle.sh
sends every file through the masking of collect_env.sh before it is packed.
"""

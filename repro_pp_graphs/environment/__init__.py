"""What collect_env.sh prints, the masking of secrets, and what changed between two collections.

Standard library only, and Python 3.8 or later: any interpreter of a system will do, and the one
that is asked about itself runs this too. Imports neither torch nor sglang: package metadata,
files, and ctypes on the CUDA and NCCL libraries, in a process of its own.
"""

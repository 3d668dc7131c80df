"""What an interpreter can tell about itself and the servers beside it, for collect_env.sh.

Imports neither torch nor sglang: package metadata, files, and ctypes on the CUDA and NCCL
libraries. Runs on Python 3.8 and later, whatever interpreter the reader asks about. Nothing
here masks secrets: collect_env.sh does, on everything that it prints.
"""

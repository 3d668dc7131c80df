#!/usr/bin/env bash
# collect_env.sh - what a bug report about sglang, NCCL or CUDA graphs needs: system, GPUs,
# network, software, environment variables, the server on a port; secrets masked.
# usage: bash collect_env.sh [--help]
# Finds a Python, any from 3.8 on, and hands over to repro_pp_graphs/environment. Without one it
# prints a short list, with bash 4.4 and coreutils alone.

set -ufo pipefail

# what the package imports; importlib.metadata came with 3.8
readonly FIND='import sys, argparse, http, importlib.metadata, json, resource, subprocess, urllib
print(sys.executable)'
readonly COLLECT='import sys; sys.path.insert(0, sys.argv.pop(1))
from repro_pp_graphs.environment.__main__ import main; sys.exit(main(sys.argv[1:]))'

self=${BASH_SOURCE[0]-$0}
[[ ! -L $self ]] || self=$(readlink -f -- "$self")
here=$(cd -- "$(dirname -- "$self")" && pwd)
asked="" previous="" why="python3: not found"
for word; do
  [[ $previous != --python ]] || asked=$word
  previous=$word
done
for word in python3 python "$here"/.venv-{cpu,0.5.{2,6.post2,23}}/bin/python "${PYTHON-}" \
  "$asked" python3.{14..8}; do
  [[ -n $(type -P -- "$word") ]] || continue
  why="repro_pp_graphs/environment: copy it too"
  [[ -d $here/repro_pp_graphs/environment ]] || break
  why="${word##*/}: older than 3.8, or parts are missing"
  python=$(timeout 5 "$word" -I -S -c "$FIND" 2>&-)
  [[ ! -x $python ]] ||
    exec "$python" ${PYTHONDONTWRITEBYTECODE:+-B} -I -S -c "$COLLECT" "$here" "$@"
done

if (($#)); then
  echo "collect_env.sh: options take Python 3.8 or newer ($why); without, a short list" >&2
  exit 2
fi
gpus="nvidia-smi: not found"
[[ -z $(type -P nvidia-smi) ]] || gpus=$(timeout 5 nvidia-smi --format=csv,noheader \
  --query-gpu=name,driver_version,memory.total 2>&1 | uniq -c) || gpus+=" (failed)"
gpus=${gpus//[^ -~$'\n']/ }
# shellcheck source=/dev/null
{ os=$(. /etc/os-release && echo "$PRETTY_NAME"); read -r _ memory </proc/meminfo
  shm=$(df -h --output=size,avail /dev/shm | tail -n 1); } 2>&-
# no here-document: before 5.1 bash writes it to /tmp
echo "## system (a short list: $why)
\`\`\`text
date      $(date -u '+%Y-%m-%d %H:%M:%S UTC')
OS        ${os:-not readable}
kernel    $(uname -r) $(uname -m)
CPU       $(nproc --all) CPUs, $(nproc) usable here
memory    ${memory:-not readable}
/dev/shm  ${shm:-not mounted}${shm:+ (size, free)}
ulimit    memlock $(ulimit -l), nofile $(ulimit -n)
GPUs      $gpus
\`\`\`"

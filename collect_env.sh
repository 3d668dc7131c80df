#!/usr/bin/env bash
# collect_env.sh - what a bug report about sglang, NCCL or CUDA graphs needs: system, GPUs,
# network, software, environment variables, the server on a port; secrets masked.
# usage: bash collect_env.sh [--help]
# Finds a Python, any from 3.8 on, and hands over to repro_pp_graphs/environment. Without one it
# prints a short list, with bash 4.4 and coreutils alone.

set -ufo pipefail

readonly FIND='import sys
from importlib.util import find_spec
parts = ("argparse", "http", "importlib.metadata", "json", "resource", "subprocess", "urllib")
print(sys.executable if sys.version_info >= (3, 8) and all(map(find_spec, parts)) else "")'
readonly COLLECT='import sys; sys.path.insert(0, sys.argv.pop(1))
from repro_pp_graphs.environment.__main__ import main; sys.exit(main(sys.argv[1:]))'

self=${BASH_SOURCE[0]-$0}
[[ ! -L $self ]] || self=$(readlink -f -- "$self")
here=$(cd -- "$(dirname -- "$self")" && pwd)
asked="" json="" port=30000 unknown="" previous="" why="python3: not found"
for word; do
  case $previous:$word in
    --python:*) asked=$word ;;
    --port:*) port=$word ;;
    *:--json) json=1 ;;
    *:--port | *:--python | *:--no-redact | *:--no-server) ;;
    *) unknown=${unknown:-${word%%=*}} ;; # to the short list
  esac
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

### the short list, always the same; it needs neither /proc, /dev nor /tmp. Nothing masks here
if [[ $unknown == @(-h|--help) ]]; then
  echo "usage, without Python 3.8: bash collect_env.sh [--json]" && exit
elif [[ -n $unknown ]]; then
  echo "collect_env.sh: ${unknown//[^ -~]/?}: $why (see --help)" >&2 && exit 2
fi
variables="" gpus="nvidia-smi: not found" os="" memory="" load=""
for word in CUDA_VISIBLE_DEVICES CUDA_DEVICE_MAX_CONNECTIONS OMP_NUM_THREADS \
  NCCL_{DEBUG,IB_DISABLE,IB_HCA,NET,P2P_DISABLE,SHM_DISABLE,SOCKET_IFNAME}; do
  value=${!word-} # a long word may be a secret
  [[ $value =~ ^[A-Za-z0-9_,.:^=-]{0,16}$ ]] || value="set, not shown: masking takes Python"
  variables+=${value:+$'\n'"$word: $value"}
done
[[ -z $(type -P nvidia-smi) ]] || gpus=$(timeout 5 nvidia-smi --format=csv,noheader \
  --query-gpu=name,driver_version,memory.total 2>&1 | uniq -c) || gpus+=" (failed)"
gpus=${gpus//$'\n'/; }
# shellcheck source=/dev/null
{ os=$(. /etc/os-release && echo "$PRETTY_NAME"); read -r _ memory </proc/meminfo
  read -r load </proc/loadavg; shm=$(df -h --output=size,avail /dev/shm | tail -n 1); } 2>&-
facts="## summary
date: $(date -u '+%Y-%m-%d %H:%M:%S UTC')
sglang: unknown: that takes Python
## system
OS: ${os:-not readable}
kernel: $(uname -r) $(uname -m)
CPU: $(nproc --all) CPUs, $(nproc) usable here
memory: ${memory:-not readable}
/dev/shm: ${shm:+size and free: }${shm:-not mounted}
ulimit memlock: $(ulimit -l)
ulimit nofile: $(ulimit -n)
load average: ${load:-not readable}
## gpus
nvidia-smi: $gpus
## network
interfaces: not listed: that takes Python
## software
Python probe: $why
## environment$variables
## server
port $port: not asked: that takes Python"

shopt -s extglob
facts=${facts//[^ -~$'\n']/ } facts=${facts//+( )/ } comma="" before="" end="" IFS=$'\n'
head='%s## %s\n```text\n' row='%.0s%-26s  %s\n' close=$'```\n\n'
if [[ -n $json ]]; then
  facts=${facts//\\/\\\\} facts=${facts//\"/\\\"} before='{"schema": 1' end=$'}\n'
  head='%s,\n"%s": {' row='%s\n "%s": "%s"' close='}'
fi
# shellcheck disable=SC2059 # formats of text or of JSON
for line in $facts; do
  case $line in
    "## "*) printf "$head" "$before" "${line:3}" && before=$close comma="" ;;
    *) printf "$row" "$comma" "${line%%: *}" "${line#*: }" && comma=, ;;
  esac || exit 2
done
printf %s "$close$end"

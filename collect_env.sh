#!/usr/bin/env bash
#
# collect_env.sh - what a bug report about sglang, NCCL or CUDA graphs needs: system, GPUs,
# network, software, environment variables, the server on a port; secrets masked.
#
# usage: bash collect_env.sh [--help]
#
# Finds a Python, any from 3.8 on, and hands over to repro_pp_graphs/environment. Without one it
# prints a short list, with bash 4.4 and coreutils alone.

set -ufo pipefail

readonly FIND='import sys
from importlib.util import find_spec
parts = ("argparse", "http", "importlib.metadata", "json", "resource", "subprocess", "urllib")
print(sys.executable if sys.version_info >= (3, 8) and all(map(find_spec, parts)) else "")'
readonly COLLECT='import os, sys
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
sys.path.insert(0, sys.argv.pop(1))
from repro_pp_graphs.environment.__main__ import main
sys.exit(main(sys.argv[1:]))'

self=${BASH_SOURCE[0]-$0}
[[ ! -L $self ]] || self=$(readlink -f -- "$self")
here=$(cd -- "$(dirname -- "$self")" && pwd)
asked="" previous=""
for word; do
  [[ $previous != --python ]] || asked=$word
  previous=$word
done
for word in python3 python "$here"/.venv-{cpu,0.5.{2,6.post2,23}}/bin/python "${PYTHON-}" "$asked" python3.{14..8}; do
  [[ -d $here/repro_pp_graphs/environment && -n $(type -P -- "$word") ]] || continue
  python=$(timeout 5 "$word" -I -S -c "$FIND" 2>&-)
  [[ ! -x $python ]] || exec "$python" -I -S -c "$COLLECT" "$here" "$@"
done

### the short list; it needs neither /proc, /dev nor /tmp
readonly PACKAGES='import importlib.util as util, sys
from importlib import metadata
found = {}
for each in metadata.distributions(): # of two of a name the first is imported
    found.setdefault("".join(str(each.metadata["Name"]).split()), "".join(str(each.version).split()))
for pair in sorted(found.items()): print(*pair)
sys.exit(not getattr(util.find_spec("sglang"), "origin", 0))'
json=0 port=30000 why="python3: not found" packages="" variables=()

die() { printf 'collect_env.sh: %s\n' "${1//[^ -~]/?}" >&2; exit 2; }

section() { # section NAME [KEY VALUE]...: nothing here masks, so that no VALUE may hold a secret
  local comma="" value words
  if ((json)); then printf ',\n"%s": {' "$1"; else printf '## %s\n```text\n' "${1^}"; fi
  for ((shift = 2; shift < $#; shift += 2)); do
    value=${*:shift+1:1}
    value=${value//$'\n'/; }
    # shellcheck disable=SC2206 # single spaces between words
    words=(${value//[^ -~]/ })
    value=${words[*]-}
    if ((json)); then
      value=${value//\\/\\\\}
      printf '%s\n "%s": "%s"' "$comma" "${*:shift:1}" "${value//\"/\\\"}"
      comma=,
    else printf '%-26s  %s\n' "${*:shift:1}" "$value"; fi
  done
  if ((json)); then printf '}'; else printf '```\n\n'; fi
}

field() { # field FILE START: what follows START in the first line that begins so
  local line
  { while IFS= read -r line; do
    [[ $line != "$2"* ]] || { printf %s "${line#"$2"}" && return; }
  done <"$1"; } 2>&-
  printf 'not readable'
}

find_packages() { # of the first Python here that has sglang, else of the first
  local word found
  local -a pythons=("${PYTHON:-python3}" "$here"/.venv-{cpu,0.5.{2,6.post2,23}}/bin/python)
  [[ -z $asked ]] || pythons=("$asked")
  for word in "${pythons[@]}"; do
    [[ -n $(type -P -- "$word") ]] || continue
    why="$word: older than 3.8, or parts are missing"
    [[ -d $here/repro_pp_graphs/environment ]] || why="$word: repro_pp_graphs/environment is missing"
    if found=$(timeout 5 "$word" -c "$PACKAGES" 2>&-); then packages=$found && return; fi
    [[ -n $packages ]] || packages=$found
  done
}

find_variables() { # a few that hold settings; a long word may be anything
  local name value
  for name in CUDA_VISIBLE_DEVICES CUDA_DEVICE_MAX_CONNECTIONS OMP_NUM_THREADS \
    NCCL_{DEBUG,IB_DISABLE,IB_HCA,NET,P2P_DISABLE,SHM_DISABLE,SOCKET_IFNAME}; do
    value=${!name-}
    [[ $value =~ ^[A-Za-z0-9_,.:^=-]{0,16}$ ]] || value="set, not shown: masking takes Python"
    [[ -z $value ]] || variables+=("$name" "$value")
  done
}

while (($#)); do
  case $1 in
    --json) json=1 ;;
    --no-redact | --no-server) ;;
    --port | --python)
      (($# > 1)) || die "$1 needs a value"
      [[ $1 != --port ]] || port=$2
      shift ;;
    -h | --help)
      echo "usage, without Python 3.8: bash collect_env.sh [--json] [--port P] [--python PATH]"
      exit ;;
    *) die "$1: unknown, or it takes Python 3.8 and repro_pp_graphs/environment (see --help)" ;;
  esac
  shift
done
[[ $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] || die "--port $port: not a port number"
[[ -z $asked || -n $(type -P -- "$asked") ]] || die "--python $asked: no such program"
find_packages
find_variables
gpus="nvidia-smi: not found"
[[ -z $(type -P nvidia-smi) ]] || gpus=$(timeout 5 nvidia-smi \
  --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1) || gpus+=" (failed)"
os=$(field /etc/os-release PRETTY_NAME=) shm=$(df -h --output=size,avail /dev/shm 2>&- | tail -n 1)
((!json)) || printf '{"schema": 1'
section summary date "$(date -u '+%Y-%m-%d %H:%M:%S UTC')" sglang "unknown: ${asked:-python3} did not say"
section system OS "${os//\"/}" kernel "$(uname -r) $(uname -m)" \
  CPU "$(nproc --all) CPUs, $(nproc) usable here" memory "$(field /proc/meminfo MemTotal:)" \
  /dev/shm "${shm:-not mounted}" "ulimit memlock" "$(ulimit -l)" "ulimit nofile" "$(ulimit -n)" \
  "load average" "$(field /proc/loadavg "")"
section gpus nvidia-smi "$gpus"
section network interfaces "not listed: that takes Python"
# shellcheck disable=SC2086 # a name and a version a line
section software "Python probe" "$why" $packages
section environment "${variables[@]}"
section server "port $port" "not asked: that takes Python"
((!json)) || printf '}\n'

#!/usr/bin/env bash
#
# collect_env.sh - what a bug report about sglang, NCCL or CUDA graphs needs:
# system, GPUs, network, software, environment variables, the server on a port.
#
# usage: bash collect_env.sh [--json] [--no-redact] [--port P] [--python PATH]
#        bash collect_env.sh --bundle [RUN_DIR] [--no-redact] [--python PATH]
#
#   --bundle       pack what a run of run_repro.sh left in RUN_DIR (default: this
#                  folder): logs cut to the telling parts, environment, results,
#                  a ready issue text; all masked, in one .tar.gz, nothing sent
#   --json         the same facts as one JSON object
#   --no-redact    show paths, names, addresses (secrets stay masked)
#   --port P       ask the server on 127.0.0.1:P (default: 30000, sglang's own)
#   --python PATH  the interpreter to ask about (default: $PYTHON or python3, or
#                  .venv-gpu or .venv-cpu beside this script if it lacks sglang)
#   -h, --help     this text
#
# examples:
#   bash collect_env.sh > env.txt                    # paste this into the issue
#   bash collect_env.sh --json > env.json            # to compare two machines
#   bash collect_env.sh --python ~/venv/bin/python   # the server's environment
#   bash collect_env.sh --port 31000                 # and its resolved arguments
#   bash collect_env.sh --bundle                     # one archive for the issue
#
# needs bash 4.4 and coreutils; uses Python, nvidia-smi, dmesg and root if there.
# Costs a Python process or two that do not import torch, six nvidia-smi calls;
# every probe has a time limit, all together 4 s, or 18 s where there are GPUs.
# --bundle takes the whole repository and Python 3.10; it looks at RUN_DIR only
# and writes issue_bundle.tar.gz and issue.md into RUN_DIR/logs.
# exit status: 0, 2 for a wrong option, 1 where a bundle could not be written.
set -euo pipefail
shopt -s extglob lastpipe # lastpipe: a chroot may lack /dev/fd, which <(...) needs, and /dev/null

### defaults
export GIT_OPTIONAL_LOCKS=0
LC_ALL=C                        # byte-wise patterns here, English messages from tools
json=0 redact=1 learning=0 run_dir="" port=30000 python="" budget_s=4
readonly MASK="<masked>" COLUMN=38 WIDTH=80 MAX_CHARS=16000
readonly LINE='([^'$'\n'']*)' # a regex: the rest of the line
readonly SECTIONS=(summary system gpus network software environment server)

usage() {
  local line
  while IFS= read -r line && [[ $line == "#"* ]]; do
    [[ $line == "#!"* ]] || printf '%s\n' "${line##@(# |#)}"
  done <"${BASH_SOURCE[0]-$0}"
}

die() { printf 'collect_env.sh: %s (see --help)\n' "$1" >&2; exit 2; }

### masking: all of it works on TEXT
# bare VALUE: without quotes and what follows a value in a list, in REPLY.
bare() {
  REPLY=${1//[\"\'\\]/}
  while [[ $REPLY == *[],\;:\)\}] ]]; do REPLY=${REPLY%?}; done
}

# is_secret NAME VALUE: does the name of an option, variable or field promise a secret?
is_secret() {
  local name=_${1,,}_ value
  bare "${2,,}"
  value=$REPLY
  [[ $value =~ ^(|[01]|true|false|yes|no|on|off|none|null)$ ]] && return 1
  name=${name//[^a-z0-9]/_}
  name=${name//@(tokeniz|token_ids|token_count|key_value|forward_pass)/}
  [[ $value =~ ^[][0-9.,\ ]+$ ]] && name=${name//@(token_id|tokens)/}
  [[ $value =~ ^([0-9]+[.][0-9]+$|[{]|[[]$) ]] && name=${name//token/}
  [[ $name =~ secret|passw|passphrase|token|credential|cookie|authoriz|bearer|signature|webhook|jwt|mnemonic ||
    $name =~ api_?key|access_?key|session_?(id|key)|key_|_keys_|connection_?string ||
    $name =~ _(auth|pass|pwd|pw|pat|sig|dsn|pin|otp|creds?|salt|serial)_ ]]
}

# replace REGEX FUNCTION: call FUNCTION on every match, which adds to clean what shall stay.
replace() {
  local clean="" rest=$TEXT before
  while [[ $rest =~ $1 ]]; do
    before=${rest%%"${BASH_REMATCH[0]}"*}
    clean+=$before
    rest=${rest:${#before}+${#BASH_REMATCH[0]}}
    "$2" "${BASH_REMATCH[@]}"
  done
  TEXT=$clean$rest
}

# scrub REGEX [MASK]: of every match keep group 1 and mask the rest.
scrub() { local mask=${2-$MASK} && replace "$1" keep_lead; }
keep_lead() { clean+=$2$mask; }

# Long words of upper case, lower case and digits are keys more often than names or paths,
# unless words make up most of them, as in DeepseekV3ForCausalLMNextN.
keep_plain() {
  local rest=$1
  ((${#1} > 300)) || rest=${1//@(\/|[A-Z][a-z]+([a-z])|[a-z][a-z]+([a-z]))/}
  if [[ $1 == *[a-z]* && $1 == *[A-Z]* && $1 == *[0-9]* ]] && ((4 * ${#rest} > ${#1})); then clean+=$MASK; else clean+=$1; fi
}

# What vendors' tokens look like: a prefix of theirs, then letters that make no words.
keep_vendor() { clean+=$2; if [[ ${3:3} == *[A-Z0-9]* ]]; then clean+=$MASK; else clean+=$3; fi; }

# a=b, "a": "b", --a b, ["--a", "b"], ("x-a", "b"): without : or = only options and quoted
# names with a hyphen take a value. Names after # are counts in sglang's log. While learning,
# what has a secret's name is also masked wherever else it turns up.
keep_name() {
  local name=$3 gap=$5 value=$8
  clean+=$2$name$gap
  if [[ $gap != *[:=]* && $gap != *%3* && ! ($name == -* && $value != --*) && ! ($gap == *,* && $name == *-*) ]] ||
    [[ $2 == *"#" && $value =~ ^[0-9]+[^0-9a-z]*$ ]] || ! is_secret "$name" "$value"; then
    rest=$value$rest
    return
  fi
  clean+=$MASK
  ((!learning)) || bare "$value"
  ((!learning || ${#REPLY} < 8)) || learn "$REPLY"
}

readonly HINTS='key|token|secret|pass|pwd|pw|auth|cred|cookie|bearer|sig|webhook|jwt|session|pat|dsn|pin|otp|salt|serial|mnemonic|connection'
# One word to a shell or in JSON, quotes and all.
readonly DOUBLE="\"([^\"\\\\]|\\\\.)*" SINGLE="'([^'\\\\]|\\\\.)*"
readonly WORD="($DOUBLE\"|$SINGLE'|[^[:space:]\"'])*($DOUBLE|$SINGLE)?"
readonly GAP="[\"'\\\\]*(%22)?[[:space:]]*([:=]|%3[AD])[[:space:]]*|[\"'\\\\]+,[[:space:]]*b?|[[:space:]]+"
readonly PAIR_RE="(^|[^A-Za-z0-9_.-])([A-Za-z0-9_.-]*($HINTS)[A-Za-z0-9_.-]*)($GAP)($WORD)"
readonly PRIVATE_RE='()-----BEGIN[A-Z0-9 ]*PRIVATE KEY.*'
readonly URL_RE="(://)([^/[:space:]\"']*|[^/[:space:]\"':@]*:[^[:space:]\"']*)@"
readonly ANSI_RE='()'$'\e''[[][0-9;]*[a-zA-Z]'
readonly UUID_RE='([0-9a-fA-F]{8})(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}'
PREFIXES='sk-|gl(pat|rt|ptt|dt|soat|ft|cbt|imt|agent)-|xox[a-z]-|xapp-|pypi-|nvapi-|xai-|tvly-|pplx-|GOCSPX-|NRAK-|PMAK-'
PREFIXES+='|A[KSB]IA|ACCA|AIza|ya29\.|1//0|hv[sb]\.|SG\.|[0-9]{8,10}:AA|eyJ|dapi|ATATT3|ATBB|AGE-SECRET-KEY-|[A-Za-z0-9_~.-]{3}[0-9]Q~'
WORDS='hf|api_org|[srp]k|[srp]k_live|[srp]k_test|whsec|gh[pousr]|github_pat|npm|gsk|r8|dckr_[a-z]+|do[opr]_v1|wandb_v1|lin_api'
WORDS+='|shp(at|ss|ca)|sntry[su]|glsa|rpa|figd|sb[pt]?|sb_secret|pscale_tkn|ops'
readonly VENDOR_RE="(^|[^A-Za-z0-9])(($PREFIXES)[A-Za-z0-9_.=-]{10,}|($WORDS)_[A-Za-z0-9]{10}[A-Za-z0-9_.=-]*)"
readonly NCCL_RE='(^|'$'\n'')([A-Za-z0-9.-]{4,}):[0-9]+:[0-9]+ [[][0-9]+[]] NCCL '
readonly SECRET_RES=(
  "((authorization|cookie)[\"'\\\\]*[[:space:]]*[:=][\"'\\\\[:space:]]*)[^"$'\n'"]+"
  "(bearer([[:space:]:=]|%20)+|basic([[:space:]]|%20)+)[^[:space:]\"',]{6,}"
  "(hooks\\.slack\\.com/[a-z]+/|discord(app)?\\.com/api/webhooks/|webhook\\.office\\.com/)[^[:space:]\"']+"
  "(%3A%2F%2F)[^[:space:]\"'/]*%40"
  "((^|[[:space:]])(-u|--(proxy-)?user)[[:space:]=]*[^[:space:]:/]+:)[^[:space:]]+"
  "(sshpass[[:space:]]+-p[[:space:]]*)[^[:space:]]+"
  "(login[[:space:]]+[^[:space:]]+[[:space:]]+password[[:space:]]+)[^[:space:]]+"
  '()[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}'
)

# hide WORD MASK: where it stands as a word of its own.
hide() {
  while [[ $TEXT =~ (^|[^A-Za-z0-9_])"$1"($|[^A-Za-z0-9_]) ]]; do
    TEXT=${TEXT/"${BASH_REMATCH[0]}"/"${BASH_REMATCH[1]}$2${BASH_REMATCH[2]}"}
  done
}

# Addresses that no other network can reach tell nodes apart and betray nobody.
keep_private() {
  clean+=$2
  if [[ $3 =~ ^(0|10|127|169\.254|192\.168|172\.(1[6-9]|2[0-9]|3[01])|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]))\. ]]; then clean+=$3; else clean+='<address>'; fi
  rest=$5$rest
}

keep_git() { if [[ $1 == git@* ]]; then clean+=$1; else clean+='<email>'; fi; }

# mask_people: home folders, names of users and of this host, addresses, unless --no-redact.
mask_people() {
  local name tilde='~'
  ((redact)) || return 0
  [[ ${HOME-} == /?* ]] && TEXT=${TEXT//"$HOME/"/"$tilde/"} && TEXT=${TEXT/%"$HOME"/"$tilde"}
  scrub '(/(home|Users)/)[^/[:space:]:<]+' '<user>'
  replace '[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}' keep_git
  replace '(^|[^0-9.])([0-9]{1,3}(\.[0-9]{1,3}){3})(:[0-9]{2,5}|[]/])' keep_private
  [[ $TEXT =~ $NCCL_RE ]] && hosts+=("${BASH_REMATCH[2]}")
  for name in "${users[@]}"; do hide "$name" '<user>'; done
  for name in "${hosts[@]}"; do hide "$name" '<host>'; done
}

# mask: no secrets, terminal escapes or bytes that are not ASCII are left.
mask() {
  local secret
  scrub "$ANSI_RE" ""
  TEXT=${TEXT//$'\t'/ }
  TEXT=${TEXT//[^ -~$'\n']/?}
  for secret in "${known_secrets[@]}"; do TEXT=${TEXT//"$secret"/"$MASK"}; done
  scrub "$PRIVATE_RE"
  scrub "$URL_RE" "$MASK@"
  shopt -s nocasematch
  for secret in "${SECRET_RES[@]}"; do scrub "$secret"; done
  replace "$PAIR_RE" keep_name
  shopt -u nocasematch
  scrub "$UUID_RE" "-..."
  replace "$VENDOR_RE" keep_vendor
  replace "[A-Za-z0-9+/]{40,}" keep_plain
  replace "[A-Za-z0-9]{24,}" keep_plain
  mask_people
}

# learn SECRET: mask it wherever it turns up, also as in URLs and in JSON.
learn() {
  local i encoded="" json=${1//\\/\\\\}
  for ((i = 0; i < ${#1}; i = i + 1)); do
    if [[ ${1:i:1} == [A-Za-z0-9._~-] ]]; then encoded+=${1:i:1}; else printf -v encoded '%s%%%02X' "$encoded" "'${1:i:1}"; fi
  done
  known_secrets+=("$1")
  [[ $encoded == "$1" ]] || known_secrets+=("$encoded")
  json=${json//\"/\\\"}
  [[ $json == "$1" ]] || known_secrets+=("$json")
}

readonly ROLES='root|nobody|user|admin|test|ubuntu|debian|ec2-user|azureuser|runner|jovyan|docker|cuda|nvidia|sglang|vllm|torch|python'

# learn_secrets: values of variables named like secrets are masked wherever they turn up.
learn_secrets() {
  local entry name value
  env -0 | mapfile -d '' -t environment
  for entry in "${environment[@]}"; do
    name=${entry%%=*} value=${entry#*=}
    [[ $name == *PWD || ${#value} -lt 8 || -e $value ]] && continue
    ! is_secret "$name" "$value" || learn "$value"
  done
  # Names of a role or a product name no person.
  for name in "${USER-}" "${LOGNAME-}" "${SUDO_USER-}" "$(id -un 2>&- || true)"; do
    [[ $name =~ ^(.{0,2}|$ROLES)$ ]] || users+=("$name")
  done
  [[ ${HOSTNAME-} =~ ^(.{0,4}|localhost|$ROLES)$ ]] || hosts+=("$HOSTNAME")
}

### facts
declare -A facts=()
declare -a order=() notes=() known_secrets=() users=() hosts=() environment=()

# fact SECTION KEY VALUE: the only way to the output; an empty value keeps a place.
fact() {
  local id="$1|${2//[^A-Za-z0-9 .,:\/()_-]/?}"
  TEXT=${3:0:MAX_CHARS}
  ((${#3} <= MAX_CHARS)) || TEXT+=" (cut)"
  if is_secret "$2" "$3"; then TEXT=$MASK; else mask; fi
  [[ -n ${facts[$id]+known} ]] || order+=("$id")
  facts[$id]=${TEXT%"${TEXT##*[!$' \n']}"}
}

note() { [[ "${notes[*]}" == *"$1"* ]] || notes+=("$1"); }

# probe LIMIT_S COMMAND...: its output in OUT, or why there is none, then status 124. A
# reader that gives up also gets past a child that no signal can end.
probe() {
  local limit=$1 fd pid status=0 left=$((budget_s - SECONDS))
  local -a command=("${@:2}")
  PARTIAL="" OUT="$2: not found"
  [[ -n $(type -t "$2") ]] || return 127
  OUT="$2: skipped, the time limit of $budget_s s is used up"
  ((left > 0)) || return 124
  ((limit < left)) || limit=$left
  [[ $(type -t "$2") == function ]] || command=(timeout -k 1 "$limit" "${command[@]}")
  if [[ -e /dev/fd && -e /dev/null ]]; then
    exec {fd}< <("${command[@]}" 2>&1 </dev/null)
    pid=$!
    IFS= read -r -d '' -t "$((limit + 1))" -u "$fd" OUT || status=$?
    exec {fd}<&-
    if ((status > 128)); then kill "$pid" 2>&- || true; else status=0 && wait "$pid" || status=$?; fi
  else OUT=$("${command[@]}" 2>&1 <&-) || status=$?; fi
  ((status < 124 || status == 127)) || { PARTIAL=$OUT OUT="$2: no answer in $limit s" && return 124; }
  OUT=${OUT%$'\n'}
  return "$status"
}

# slurp FILE: its text in OUT; fails when it cannot be read or is empty.
slurp() {
  OUT=""
  [[ -r $1 && ! -d $1 ]] && { OUT=$(<"$1"); } 2>&- && [[ -n $OUT ]]
}

# seek TEXT REGEX: group 1 of the first match in OUT.
seek() { [[ $1 =~ $2 ]] && OUT=${BASH_REMATCH[1]}; }

# spread VALUE...: "a" when all agree, "a, b, c" when none do, else "a (0,1,2), b (3)".
spread() {
  local -A where=()
  local -a values=()
  local value i=0 text=""
  for value; do
    [[ -n ${where[_$value]+known} ]] || values+=("$value")
    where[_$value]+=,$i
    i=$((i + 1))
  done
  for value in "${values[@]}"; do
    text+=", $value"
    ((${#values[@]} == 1 || ${#values[@]} == $#)) || text+=" (${where[_$value]#,})"
  done
  OUT=${text#, }
}

# count WORD...: "2 x a, 1 x b".
count() {
  local number word text=""
  printf '%s\n' "$@" | sort | uniq -c |
    while read -r number word; do text+="${word:+, $number x $word}"; done
  OUT=${text#, }
}

collect_container() {
  local found="" file
  [[ -e /.dockerenv ]] && found+="docker "
  [[ -e /run/.containerenv ]] && found+="podman "
  [[ -n ${KUBERNETES_SERVICE_HOST-} ]] && found+="kubernetes "
  fact system container "${found:-${container:-no sign of one}}"
  slurp /run/.containerenv && seek "${OUT//$'\n'/ }" '(image=.*imageid=[^ ]*)' || OUT="digest not visible from inside"
  [[ -z $found ]] || fact system image "$OUT"
  found=""
  for file in sys_vendor product_name; do slurp "/sys/class/dmi/id/$file" && found+="$OUT "; done
  slurp /proc/cpuinfo && [[ $OUT == *" hypervisor"* ]] && found+="(virtual machine)"
  fact system machine "${found:-not told}"
}

collect_cgroup() {
  local file base=/sys/fs/cgroup text=""
  slurp /proc/self/cgroup && seek "$OUT" "0::$LINE" && [[ -e $base$OUT/cpu.max ]] && base+=$OUT
  for file in cpu.max memory.max cpuset.cpus.effective cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes; do
    slurp "$base/$file" && text+="${text:+, }${file##*/} $OUT"
  done
  fact system "cgroup limits" "${text:-none readable}"
  { slurp "$base/cpu.stat" || slurp "$base/cpu/cpu.stat"; } && seek "$OUT" 'nr_throttled ([0-9]+)' || OUT="not readable"
  fact system "cgroup throttled periods" "$OUT"
}

collect_system() {
  local file text=""
  local -a words=()
  fact summary date "$(date -u '+%Y-%m-%d %H:%M:%S UTC')"
  for file in sglang torch NCCL server; do fact summary "$file" "not told by $python"; done
  slurp /etc/os-release && seek "$OUT" 'PRETTY_NAME="?([^"'$'\n'']*)' || OUT="not told"
  fact system OS "$OUT"
  fact system kernel "$(uname -r) $(uname -m)"
  collect_container
  slurp /proc/cpuinfo && seek "$OUT" $'model name[ \t]*: '"$LINE" || OUT="model not told"
  fact system CPU "$OUT; $(nproc --all) CPUs, $(nproc) usable here"
  for file in /sys/devices/system/node/node[0-9]*; do slurp "$file/cpulist" && text+="${text:+; }${file##*/}: $OUT"; done
  fact system NUMA "${text:-no nodes shown}"
  slurp /proc/meminfo && text=$OUT
  for OUT in MemTotal MemAvailable; do seek "$text" "$OUT: +([0-9]+) kB" && words+=("$((OUT / 1048576)) GiB"); done
  fact system memory "${words[0]-not told}, ${words[1]-?} available"
  df -h --output=size,avail /dev/shm 2>&- | tail -n 1 | read -r -a words
  fact system /dev/shm "${words[0]-not mounted}, ${words[1]-nothing} free"
  fact system "ulimit memlock" "soft $(ulimit -S -l), hard $(ulimit -H -l) (KiB)"
  fact system "ulimit nofile" "soft $(ulimit -S -n), hard $(ulimit -H -n)"
  [[ -d /sys/class/infiniband && $(ulimit -S -l) != unlimited ]] &&
    note "memlock is limited and there are RDMA devices: NCCL may fail to register memory"
  collect_cgroup
  for file in "load average=/proc/loadavg" "NUMA balancing=/proc/sys/kernel/numa_balancing" \
    "transparent hugepages=/sys/kernel/mm/transparent_hugepage/enabled" \
    "clock source=/sys/devices/system/clocksource/clocksource0/current_clocksource"; do
    slurp "${file#*=}" || OUT="not readable"
    fact system "${file%%=*}" "$OUT"
  done
  if ! { probe 1 chronyc -n tracking && seek "$OUT" "System time *: $LINE"; }; then
    probe 1 timedatectl show -p NTPSynchronized && OUT="offset not told, $OUT" || OUT="chronyc, timedatectl: no answer"
  fi
  fact system "clock offset" "$OUT"
  cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor 2>&- | mapfile -t words
  count "${words[@]}"
  fact system governor "${OUT:-not readable}"
}

GPU_FIELDS=name,driver_version,vbios_version,compute_cap,pci.bus_id,pcie.link.gen.current
GPU_FIELDS+=,pcie.link.gen.max,pcie.link.width.current,memory.total,memory.used,utilization.gpu
GPU_FIELDS+=,temperature.gpu,pstate,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.draw
GPU_FIELDS+=,clocks.applications.graphics,clocks.applications.memory
GPU_FIELDS+=,power.limit,power.default_limit,persistence_mode,compute_mode,mig.mode.current,fabric.state
GPU_FIELDS+=,ecc.mode.current,ecc.errors.corrected.volatile.total,ecc.errors.uncorrected.volatile.total
GPU_FIELDS+=,ecc.errors.uncorrected.aggregate.total,retired_pages.pending
GPU_FIELDS+=,clocks_throttle_reasons.active,clocks_event_reasons.active
# Bits of nvmlClocksEventReason* in nvml.h, lowest first.
readonly REASONS=(idle "application clocks" "software power cap" "hardware slowdown" "sync boost"
  "software thermal" "hardware thermal" "power brake" "display clocks")

reasons() {
  local i bits=$OUT text=""
  [[ $bits == 0x* ]] || return 0
  for i in "${!REASONS[@]}"; do ((bits >> i & 1)) && text+=" + ${REASONS[i]}"; done
  OUT=${text:- + none}
  OUT=${OUT# + }
}

# query_gpus: GPU_FIELDS without those that this driver does not know, as CSV in OUT.
query_gpus() {
  local before=""
  fields=,$GPU_FIELDS,
  while [[ $fields != "$before" ]]; do
    before=${fields#,}
    probe 5 nvidia-smi "--query-gpu=${before%,}" --format=csv,noheader && return
    seek "$OUT" 'Field "([^"]+)" is not a valid' || return 1
    before=$fields
    fields=${fields/",$OUT,"/,}
  done
  return 1
}

# gpu_table CSV: one fact a field, over all GPUs.
gpu_table() {
  local row column
  local -a labels=() rows=() cells=() values=()
  mapfile -t rows <<<"$1"
  gpu_count=${#rows[@]}
  IFS=, read -r -a labels <<<"${fields#,}"
  for column in "${!labels[@]}"; do
    values=()
    for row in "${rows[@]}"; do
      IFS=, read -r -a cells <<<"$row"
      OUT=${cells[column]-}
      OUT=${OUT# }
      [[ ${labels[column]} != *_reasons.active ]] || reasons
      values+=("$OUT")
    done
    spread "${values[@]}"
    fact gpus "${labels[column]}" "$OUT"
    case "${labels[column]} $OUT" in
      "name "*) fact summary GPUs "$gpu_count x $OUT" ;;
      "driver_version "*) fact summary driver "$OUT" ;;
      persistence*Disabled*) note "persistence mode is off: clocks and first-call times vary" ;;
      *_reasons.*@(hardware|thermal|brake)*) note "GPUs are throttled: $OUT" ;;
      *.uncorrected.*) [[ " ${values[*]}" != *" "[1-9]* ]] || note "uncorrected ECC errors: $OUT" ;;
    esac
  done
}

# gpu_details TEXT: what only `nvidia-smi -q` tells, one fact over all GPUs: remapped rows, and
# how long each GPU has been held back (drivers since 560).
gpu_details() {
  local line heading="" key
  local -A told=()
  local -a keys=() cells=()
  while IFS= read -r line; do
    if [[ $line =~ ^'    '([A-Z][^:]*[^: ])\ *$ ]]; then heading=${BASH_REMATCH[1]}; fi
    [[ $heading == @(Remapped Rows|Clocks Event Reasons Counters) ]] || continue
    [[ $line =~ ^'        '([^ :][^:]*[^ :])\ *:\ (.+)$ ]] || continue
    key="${heading/Clocks Event Reasons Counters/held back}, ${BASH_REMATCH[1]}"
    [[ -n ${told[$key]-} ]] || keys+=("$key")
    told[$key]+=${BASH_REMATCH[2]}$'\n'
  done <<<"$1"
  for key in "${keys[@]}"; do
    mapfile -t cells <<<"${told[$key]%$'\n'}"
    spread "${cells[@]}"
    fact gpus "${key,,}" "$OUT"
    [[ $key != *@(Pending|Failure*) || $OUT != *Yes* ]] || note "GPU memory: ${key,,}: $OUT"
  done
}

# topo OPTION...: a table of nvidia-smi topo with narrow columns and no legend.
topo() {
  probe 5 nvidia-smi topo "$@" || return 0
  TEXT=${OUT%%$'\n'Legend*}
  scrub "$ANSI_RE" ""
  OUT=$(expand -t 7 <<<"$TEXT")
}

# topology_line MATRIX: how many pairs of GPUs have which link.
topology_line() {
  local i
  local -a cells=() links=()
  while read -r -a cells; do
    [[ ${cells[0]-} =~ ^GPU([0-9]+)$ && ${cells[1]-} != GPU* ]] || continue
    for ((i = BASH_REMATCH[1] + 2; i <= gpu_count; i = i + 1)); do links+=("${cells[i]-?}"); done
  done <<<"$1"
  count "${links[@]}"
}

kernel_log() { if [[ -n $(type -t dmesg) ]]; then timeout 2 dmesg | tail -c 99999; else echo "dmesg: not found" && return 1; fi; }

collect_gpus() {
  local line text=""
  local -a links=()
  fact summary driver "not found"
  slurp /proc/driver/nvidia/version && seek "$OUT" "NVRM version: $LINE" &&
    fact gpus "kernel module" "$OUT" && fact summary driver "$OUT"
  if ! query_gpus; then
    fact gpus nvidia-smi "${OUT:-failed without a word}"
    fact summary GPUs "${OUT%%$'\n'*}"
    collect_amd
    return
  fi
  gpu_table "$OUT"
  probe 5 nvidia-smi -q -d PERFORMANCE,ROW_REMAPPER && gpu_details "$OUT"
  probe 5 nvidia-smi --query-compute-apps=gpu_bus_id,pid,process_name,used_memory --format=csv,noheader
  fact gpus processes "${OUT:-none seen}"
  topo -m
  fact gpus topology "$OUT"
  topology_line "$OUT"
  fact summary topology "$OUT"
  topo -p2p r
  fact gpus "P2P read" "$OUT"
  if probe 5 nvidia-smi nvlink --status; then
    while read -r line; do [[ $line == Link\ * ]] && links+=("${line#*: }"); done <<<"$OUT"
    count "${links[@]}"
  fi
  fact gpus "NVLinks, all GPUs" "${OUT:-none reported}"
  if probe 3 kernel_log; then
    while read -r line; do [[ $line == *"NVRM: Xid"* ]] && text+=$line$'\n'; done <<<"$OUT"
    [[ -n $text ]] && note "the kernel log has Xid lines (GPU errors)"
    OUT=${text:-none in dmesg}
  fi
  fact gpus "Xid lines" "$OUT"
}

collect_amd() {
  local file
  local -a names=() tools=(amd-smi static --asic --bus --driver --vram)
  for file in /sys/class/drm/card*/device; do
    if ! slurp "$file/vendor" || [[ $OUT != 0x1002 ]]; then continue; fi
    slurp "$file/product_name" || OUT="AMD GPU"
    names+=("$OUT")
  done
  ((${#names[@]} == 0)) || { count "${names[@]// /_}" && fact summary GPUs "${OUT//_/ }"; }
  slurp /sys/module/amdgpu/version && fact gpus "amdgpu module" "$OUT" && fact summary driver "amdgpu $OUT"
  [[ -n $(type -t amd-smi) ]] || tools=(rocm-smi --showproductname --showdriverversion --showvbios --showclocks --showmeminfo vram)
  probe 5 "${tools[@]}" || [[ ${tools[0]} != rocm-smi ]] || OUT="amd-smi, rocm-smi: not found"
  fact gpus "AMD tools" "$OUT"
}

collect_network() {
  local path name text="" any=""
  for path in /sys/class/infiniband/*/ports/*; do
    [[ -d $path ]] || continue
    any=${path%/ports/*} text=""
    for name in link_layer state phys_state rate; do slurp "$path/$name" && text+=", ${OUT#*: }"; done
    fact network "RDMA ${any##*/}:${path##*/}" "${text#, }"
  done
  [[ -n $any ]] || fact network RDMA "no InfiniBand or RoCE device"
  for path in /sys/class/net/*; do
    name=${path##*/} text=""
    [[ -d $path && $name != lo && $name != veth* ]] || continue
    slurp "$path/operstate" && text=$OUT
    slurp "$path/speed" && ((OUT > 0)) && text+=", $OUT Mb/s"
    slurp "$path/mtu" && text+=", MTU $OUT"
    fact network "interface $name" "$text"
  done
  text=""
  for name in nvidia_peermem nvidia_fs gdrdrv; do [[ ! -d /sys/module/$name ]] || text+="$name "; done
  fact network "GPUDirect modules" "${text:-none loaded}"
}

# choose_python: the default, or where it has no sglang an environment of run_repro.sh.
choose_python() {
  local candidate
  python=${PYTHON:-python3}
  for candidate in "$here"/.venv-gpu/bin/python "$here"/.venv-cpu/bin/python; do
    [[ -x $candidate ]] || continue
    ! has_sglang "$python" || return 0
    ! has_sglang "$candidate" || python=$candidate
  done
}

has_sglang() { # without importing it; a folder of that name in the current directory is none
  probe 2 "$1" -c 'import importlib.util as u, sys
sys.exit(not getattr(u.find_spec("sglang"), "origin", 0))'
}

collect_software() {
  local section key value
  local -a code=('import sys; sys.path[:] = [p for p in sys.path if p] + sys.argv[2:]
from repro_pp_graphs.environment.__main__ import main; main(int(sys.argv[1]))' "$port" "$here")
  [[ ! -d $here/repro_pp_graphs ]] || ! probe 2 git -C "$here" describe --always --tags --dirty || fact software "this checkout" "$OUT"
  [[ -d $here/repro_pp_graphs/environment ]] || code=('from importlib import metadata
for d in metadata.distributions():
    for section in ("software", "summary")[:1 + (d.metadata["Name"] in ("sglang", "torch"))]:
        print(section, d.metadata["Name"], d.version, sep="\t")')
  fact server "port $port" "not asked: that takes Python and repro_pp_graphs/environment"
  probe 4 "$python" -c "${code[@]}" || fact software "Python probe" "${OUT:-$python: failed without a word}"
  while IFS=$'\t' read -r section key value; do
    [[ $section == @(summary|network|software|server) && -n $value ]] || continue
    if [[ $key == "look at" ]]; then note "$value"; else fact "$section" "$key" "$value"; fi
  done <<<"$OUT"$'\n'"$PARTIAL"
  key=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
  [[ -x $key ]] || key=nvcc
  probe 2 "$key" --version && seek "$OUT" "release $LINE" && OUT+=" $key"
  fact software nvcc "$OUT"
  for key in nsys ncu gcc; do
    probe 2 "$key" --version && seek "$OUT" '([0-9]+(\.[0-9]+)+)'
    fact software "$key" "$OUT"
  done
}

readonly SHOWN='^((NCCL|CUD[AN]+|CUBLAS|NVSHMEM|SGLANG|SGL|HF|HUGGING|TRANSFORMERS|TOKENIZERS|OMP|MKL|KMP|GOMP)_
|(OPENBLAS|UCX|GLOO|FI|FLASHINFER|TRITON|DG|DEEPEP|MC|MOONCAKE|KINETO|VLLM|RAY|SLURM|CONDA|LD|MASTER|MALLOC)_
|(HIP|HSA|ROCM|GPU|PYTORCH)_|NVIDIA_[^R]|TORCH|PYTHON|(TEARDOWN_|DISABLE_)?CUPTI|(LOCAL_)?RANK=|WORLD_SIZE=|VIRTUAL_ENV=|PATH=|[a-zA-Z]+_(proxy|PROXY)=)'

collect_environment() {
  local entry
  printf '%s\0' "${environment[@]}" | sort -z | while IFS= read -r -d '' entry; do
    [[ $entry =~ ${SHOWN//$'\n'/} ]] || continue
    OUT=${entry#*=}
    fact environment "${entry%%=*}" "${OUT:-(empty)}"
  done
}

# print_lines VALUE: its lines, those that are too long wrapped, but for the rows of tables.
print_lines() {
  local line
  while IFS= read -r line; do
    if ((${#line} + 2 <= WIDTH)) || [[ $line == *"  "* ]]; then printf '  %s\n' "$line"; else print_wrapped 0 "" "$line"; fi
  done <<<"$1"
}

# print_wrapped COLUMN KEY VALUE: the value in a column of its own; only words, as paths, stick out.
print_wrapped() {
  local key=$2 line="" word
  local -a words
  read -ra words <<<"$3"
  for word in "${words[@]}"; do
    if [[ -n $line ]] && (($1 + 2 + ${#line} + 1 + ${#word} > WIDTH)); then
      printf '%-*s  %s\n' "$1" "$key" "$line"
      key="" line=""
    fi
    line+=${line:+ }$word
  done
  printf '%-*s  %s\n' "$1" "$key" "$line"
}

print_facts() {
  local section id value width comma='{"schema":1'
  local -A titles=([gpus]=GPUs [environment]="Environment variables")
  for section in "${SECTIONS[@]}"; do
    if ((json)); then printf '%s,\n"%s":{' "$comma" "$section"; else printf '## %s\n```text\n' "${titles[$section]-${section^}}"; fi
    comma="" width=0
    for id in "${order[@]}"; do
      [[ $id != "$section|"* ]] || ((${#id} - ${#section} - 1 <= width)) || width=$((${#id} - ${#section} - 1))
    done
    ((width < COLUMN)) || width=$COLUMN
    for id in "${order[@]}"; do
      value=${facts[$id]}
      [[ $id == "$section|"* && -n $value ]] || continue
      if ((json)); then # mask() left printable ASCII and line feeds alone, fact() no quotes in keys
        value=${value//\\/\\\\}
        value=${value//\"/\\\"}
        printf '%s\n  "%s":"%s"' "$comma" "${id#*|}" "${value//$'\n'/\\n}"
        comma=,
      else
        if [[ $value == *$'\n'* ]]; then
          printf '%s\n' "${id#*|}"
          print_lines "$value"
        else print_wrapped "$width" "${id#*|}" "$value"; fi
      fi
    done
    comma="}"
    ((json)) || printf '```\n\n'
  done
  ((!json)) || printf '}}\n'
}

### options, then collect, then print
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]-$0}")" && pwd)
while (($#)); do
  case $1 in
    --json) json=1 ;;
    --no-redact) redact=0 ;;
    --bundle)
      run_dir=$here
      [[ ${2-} == "" || $2 == -* ]] || { run_dir=${2%/} && shift; }
      ;;
    --port | --python)
      (($# > 1)) || die "$1 needs a value"
      printf -v "${1#--}" %s "$2" && shift ;;
    -h | --help) usage && exit 0 ;;
    *) die "unknown option $1" ;;
  esac
  shift
done
[[ $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] || die "--port $port: not a port number"
[[ -z $python || -n $(type -t "$python") ]] || die "--python $python: no such program"

SECONDS=0 TEXT="" OUT="" PARTIAL="" gpu_count=0
[[ -z $(type -t nvidia-smi amd-smi rocm-smi) ]] || budget_s=18
learn_secrets
[[ -n $python ]] || choose_python
if [[ -n $run_dir ]]; then
  ((!json)) || die "--json and --bundle do not go together"
  [[ -r $here/repro_pp_graphs/bundle/bundle.sh ]] || die "--bundle needs the whole repository: no $here/repro_pp_graphs/bundle"
  # shellcheck source=repro_pp_graphs/bundle/bundle.sh
  source "$here/repro_pp_graphs/bundle/bundle.sh"
  bundle "$run_dir"
  exit
fi
# No probe may end the run: || also turns errexit off inside.
for section in system gpus network software environment; do "collect_$section" || true; done
printf -v OUT '%s\n' "${notes[@]}"
((${#notes[@]} == 0)) || fact summary "look at" "$OUT"
print_facts

# shellcheck shell=bash disable=SC2034,SC2154 # collect_env.sh reads learning, sets the others
# bundle RUN_DIR: what a run left, masked and cut, as one archive for an issue; sourced by
# collect_env.sh, whose mask() it uses. Nothing is sent anywhere.

readonly CHUNK=8000 # characters masked at a time: the time grows with the square of it

# mask_file FROM TO: line by line, but for what spans lines: private keys, an option's value.
mask_file() {
  local line chunk="" key=0
  : >"$2"
  while IFS= read -r line || [[ -n $line ]]; do
    chunk+=$line$'\n'
    [[ $line != *-BEGIN*"PRIVATE KEY"* ]] || key=1
    [[ $line != *-END*"PRIVATE KEY"* ]] || key=0
    ((${#chunk} < CHUNK || key)) || [[ $line == *--* ]] || mask_chunk >>"$2"
  done <"$1"
  mask_chunk >>"$2"
}

mask_chunk() { # masks chunk, prints it and empties it
  TEXT=$chunk
  mask
  printf %s "$TEXT"
  chunk=""
}

# mask_leaves FROM TO: JSON as lines `name \37 text` (leaves.py): a line with the text each, so
# that it can be put together again. Most lines recur in other files.
declare -A masked_leaves=()
mask_leaves() {
  local name text leaf
  while IFS= read -r leaf; do
    if [[ -z ${masked_leaves[$leaf]+known} ]]; then
      IFS=$'\37' read -r name text <<<"$leaf"
      mask_leaf "$name" "$text"
      masked_leaves[$leaf]=$TEXT
    fi
    printf '%s\n' "${masked_leaves[$leaf]}"
  done <"$1" >"$2"
}

mask_leaf() { # mask_leaf NAME TEXT: into TEXT
  local option=""
  if is_secret "$1" "$2"; then
    TEXT=$MASK
    ((!learning)) || bare "$2"
    ((!learning || ${#REPLY} < 8)) || learn "$REPLY"
    return
  fi
  TEXT=$2
  ! is_plain "$2" || return 0
  [[ $1 != -* ]] || option="$1 "         # some options' values hold a secret in part: -u name:password
  TEXT=$option${2//'\n'/$'\n'} # a name and its secret may stand on two lines of one string
  mask
  TEXT=${TEXT#"$option"}
  TEXT=${TEXT//$'\n'/'\n'}
}

# is_plain TEXT: a number or a word of small letters, which no shape of a secret fits: mask() takes
# 8 times as long as all of this.
is_plain() {
  local word
  [[ $1 =~ ^([a-z_]*|-?[0-9.]+(e[-+]?[0-9]+)?)$ ]] || return 1
  for word in "${known_secrets[@]}" "${users[@]}" "${hosts[@]}"; do
    [[ $1 != *"$word"* ]] || return 1
  done
}

mask_staged() { # mask_staged NAME TO
  local how=mask_file
  [[ ! -e $staged/json/$1 ]] || how=mask_leaves
  "$how" "$staged/files/$1" "$2"
}

learn_from_run() { # what the servers' arguments and environments call a secret
  local file
  learning=1
  for file in "$staged"/files/*_command.sh "$staged"/files/run.json "$staged"/files/*_launch.json; do
    [[ ! -e $file ]] || mask_staged "${file##*/}" /dev/null
  done
  learning=0 masked_leaves=()
}

show_contents() { # show_contents FOLDER NOTES
  local name note size text total=0
  printf '%9s  %6s  %s\n' bytes masked file
  while IFS=$'\t' read -r name note; do
    size=$(wc -c <"$1/$name")
    text=$(<"$1/$name")
    text=${text//"$MASK"/$'\1'}
    text=${text//[!$'\1']/}
    total=$((total + ${#text}))
    printf '%9d  %6d  %s\n' "$size" "${#text}" "$name"
    [[ -z $note ]] || fold -s -w 58 <<<"$note" | while read -r text; do printf '%20s %s\n' "" "$text"; done
  done <"$2"
  printf '%s secrets are masked in all (%s stands where each was)\n' "$total" "$MASK"
}

bundle() {
  local run=$1 name archive=$1/logs/issue_bundle.tar.gz
  local -a tool=(env "PYTHONPATH=$here" "PYTHONSAFEPATH=1" "$python" -m repro_pp_graphs.bundle)
  [[ -r $run/logs/run.json ]] || die "--bundle $run: no run of run_repro.sh: $run/logs/run.json is missing"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    die "--bundle needs Python 3.10 or later, and $python is none: name one with --python"
  staged=$(mktemp -d)
  trap 'rm -rf "$staged"' EXIT
  "${tool[@]}" stage "$run" "$staged" || exit 1
  learn_from_run
  mkdir "$staged/masked"
  while IFS=$'\t' read -r name _; do mask_staged "$name" "$staged/masked/$name"; done <"$staged/notes"
  "${tool[@]}" pack "$staged" "$archive" || exit 1
  cp "$staged/masked/issue.md" "$run/logs/issue.md"
  cat "$staged/masked/issue.md"
  printf '\n%s\n\n' "-------- the issue text ends here; below is what the archive holds --------"
  show_contents "$staged/masked" "$staged/notes"
  printf '%s\n' "" "Nothing has been sent. Look through it first: masking knows the names and shapes" \
    "of secrets, not yours. Then attach the archive to the issue:"
  printf '  %-8s %s\n' archive "$archive ($(wc -c <"$archive") bytes)" text "$run/logs/issue.md" \
    form "https://github.com/sgl-project/sglang/issues/new/choose"
}

# shellcheck shell=bash disable=SC2034 # learning is read by collect_env.sh
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

# learn_from FOLDER: what the servers' arguments and environments call a secret.
learn_from() {
  local file
  learning=1
  for file in "$1"/*_server_command.sh "$1"/run.json "$1"/*_launch.json; do
    [[ ! -e $file ]] || mask_file "$file" /dev/null
  done
  learning=0
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
  learn_from "$staged/files"
  mkdir "$staged/masked"
  while IFS=$'\t' read -r name _; do mask_file "$staged/files/$name" "$staged/masked/$name"; done <"$staged/notes"
  "${tool[@]}" pack "$staged/masked" "$archive" || exit 1
  cp "$staged/masked/issue.md" "$run/logs/issue.md"
  cat "$staged/masked/issue.md"
  printf '\n%s\n\n' "-------- the issue text ends here; below is what the archive holds --------"
  show_contents "$staged/masked" "$staged/notes"
  printf '%s\n' "" "Nothing has been sent. Look through it first: masking knows the names and shapes" \
    "of secrets, not yours. Then attach the archive to the issue:"
  printf '  %-8s %s\n' archive "$archive ($(wc -c <"$archive") bytes)" text "$run/logs/issue.md" \
    form "https://github.com/sgl-project/sglang/issues/new/choose"
}

# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the script that sources this sets and reads them
# How a run ends, whatever ends it: processes, the lock of --out, and whose the files are.
# Uses: out, here, state, step.sh, group.sh, mps.sh, tool, and what is under way: load_pid,
# server_pid, current, begun. Sets: made_folders, above_made
made_folders=() above_made=""

undo() {
  local status=$? was_interrupted=$interrupted
  trap - EXIT
  trap '' INT TERM HUP # a second Ctrl-C must not stop the clean-up
  interrupted=0        # else its own steps would end it
  [[ -z $step_pid ]] || end_group "$step_pid" 5 TERM
  [[ -z $load_pid ]] || end_group "$load_pid" 3 TERM
  [[ -z $server_pid ]] || end_group "$server_pid" "$((3 + srun_grace_s))"
  stop_mps
  if ((was_interrupted && begun)); then
    [[ -z $current ]] || tool finish "$out" "$current" --interrupted || true
    [[ ! -t 1 ]] || say "" # the line of the ^C
    say "interrupted; the run so far:"
    tool summary "$out" || true
  fi
  ((!begun)) || hand_over
  unlock
  hand_over_state
  exit "$status"
}

interrupt() {
  interrupted=1
  ((beginning)) || exit 130 # else the process that has just begun is not yet known
}

unlock() { # give up --out, which the plan took for this process
  local boot pid start mine started
  { read -r boot pid start _ <"$out/run.lock"; } 2>/dev/null || return 0
  read -r mine </proc/sys/kernel/random/boot_id
  read_start_time started $$
  [[ "$boot $pid $start" == "$mine $$ $started" ]] || return 0
  rm -rf "$out/logs/.reserve" "$out"/logs/*.part "$out"/trace/*.part "$out"/trace/.merge-* # drafts
  rm -f "$out/run.lock"
  remove_made # where nothing came to be
}

note_made() { # which folders, from --out up, this run will make
  local folder=$out
  while [[ ! -e $folder && ! -L $folder ]]; do
    made_folders+=("$folder")
    folder=$(dirname "$folder")
  done
  above_made=$folder
}

remove_made() { # those of them that are empty
  local folder
  for folder in "${made_folders[@]}"; do
    rmdir -- "$folder" || return 0
  done
} 2>/dev/null

hand_over() { # what root made, as in a container, to the owner of --out (where root made that: of the
  # folder it is in), and of the checkout
  ((EUID == 0)) || return 0
  local name
  for name in "${made_folders[@]}"; do
    chown -h --reference="$above_made" -- "$name" || return 0
  done
  for name in logs trace previous; do
    [[ ! -d $out/$name ]] || chown -hR --reference="$out" -- "$out/$name" || return 0
  done
} 2>/dev/null

hand_over_state() { # to the owner of the checkout: who could not use, and would not believe, root's
  ((EUID != 0)) || [[ ! -d $state ]] || chown -hR --reference="$here" -- "$state" 2>/dev/null || true
}

# shellcheck shell=bash
# shellcheck disable=SC2154 # the script that sources this sets out
# The MPS daemon of a launch: with it ranks that share a GPU run side by side. One that met a GPU
# fault may refuse whoever comes after, so each launch has its own.
# Uses: out, short, nap, begin_group, end_group, leader_lives. Sets: mps_pid, and mps_env: what goes
# before the command of whoever is to be its client
mps_pid="" mps_env=()

# With pipes of its own: whoever else uses MPS is not touched, and its clients are not ours.
start_mps() { # start_mps LABEL: 1 where it does not start
  local tenths=150
  mps_env=(env "CUDA_MPS_PIPE_DIRECTORY=$out/mps/pipe" "CUDA_MPS_LOG_DIRECTORY=$out/mps/log")
  short mkdir -p "$out/mps/pipe" "$out/mps/log"
  # it would count devices among those, and its clients by the names of all
  begin_group mps_pid "$out/mps/$1.log" env -u CUDA_VISIBLE_DEVICES "${mps_env[@]}" \
    nvidia-cuda-mps-control -f
  until [[ -e $out/mps/pipe/control ]]; do
    if ! leader_lives "$mps_pid" || ((tenths-- == 0)); then
      stop_mps
      return 1
    fi
    nap 0.1
  done
}

stop_mps() { # the daemon that this launch began, and no other
  local tenths=100
  [[ -n $mps_pid ]] || return 0
  timeout 15 "${mps_env[@]}" nvidia-cuda-mps-control <<<quit >/dev/null 2>&1 || true
  while leader_lives "$mps_pid" && ((tenths-- > 0)); do nap 0.1; done
  end_group "$mps_pid" 5 TERM
  mps_pid="" mps_env=()
  rm -rf "$out/mps/pipe"
}

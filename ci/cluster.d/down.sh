# Stops a cluster and leaves nothing behind, whatever state it is in. Needs no pid file: everything is below one cgroup.
# shellcheck shell=bash disable=SC2154 # variables of common.sh

down() {
  local hierarchy process namespace made deadline=$((SECONDS + 20))
  # All at once and without grace: there is no state to keep, and an API server would hold its port for a minute.
  while process=$(cgroup_processes "$cluster"); [ -n "$process" ]; do
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL $process 2>/dev/null
    [ "$SECONDS" -lt "$deadline" ] || fail "cannot stop ${process//$'\n'/ }"
    sleep 0.1
  done
  for hierarchy in $(cgroup_mounts); do
    [ -d "$hierarchy/$cluster" ] && find "$hierarchy/$cluster" -depth -type d -exec rmdir {} + 2>/dev/null
  done
  for namespace in $(ip netns 2>/dev/null | awk -v name="$cluster" '$1 == name || $1 ~ "^" name "-node[0-9]+$" { print $1 }'); do
    ip netns delete "$namespace"
  done
  restore_sysctls
  [ -d "$run" ] || return 0
  # The nodes' mounts went with their mount namespaces; this is for what a kernel holds on to a moment longer.
  awk -v run="$run/" 'index($2, run) == 1 { print $2 }' /proc/mounts | sort -r | while read -r made; do umount --lazy "$made"; done
  # Where a second cluster has mounted on it, it stays: its nodes would lose what is mounted.
  [ ! -e "$run/made" ] || sort -r "$run/made" | while read -r made; do
    grep -qs " $made " /proc/[0-9]*/mountinfo || rmdir "$made" 2>/dev/null
  done
  rm -rf --one-file-system "$run"
}

# The kubelet sets these for the whole machine.
kubelet_sysctls=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)
save_sysctls() { sysctl "${kubelet_sysctls[@]}" >"$run/sysctl" 2>/dev/null || true; }
restore_sysctls() { [ ! -e "$run/sysctl" ] || sysctl -q --load "$run/sysctl" 2>/dev/null || true; }

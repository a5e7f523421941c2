# What the parts of ci/cluster share: versions, folders, and how a process is started so that it can be found again.
# shellcheck shell=bash disable=SC2034 # read by the files that source this one

KUBERNETES_VERSION=1.36.3
ETCD_VERSION=3.7.3
CONTAINERD_VERSION=2.2.1
COREDNS_VERSION=1.14.7

parts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Binaries: built once a machine, one folder a component and version.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nodetap/cluster
kubernetes_bin=$cache/kubernetes-$KUBERNETES_VERSION
etcd_bin=$cache/etcd-$ETCD_VERSION
containerd_bin=$cache/containerd-$CONTAINERD_VERSION
coredns_bin=$cache/coredns-$COREDNS_VERSION
bins=$kubernetes_bin:$etcd_bin:$containerd_bin:$coredns_bin

# One cluster a name; network namespaces, cgroup and folder carry it, so two clusters do not meet.
cluster=${NODETAP_CLUSTER:-nodetap}
run=${NODETAP_CLUSTER_RUN:-/var/tmp/nodetap-cluster}/$cluster

# Addresses are alive in the cluster's own network namespaces only.
network=10.99.0
api_ip=$network.1
dns_ip=$network.53
service_cidr=10.96.0.0/16
service_ip=10.96.0.1
pod_cidr=10.88.0.0/16
node_ip() { echo "$network.$((10 + $1))"; }
node_cidr() { echo "10.88.$1.0/24"; }
node_namespace() { echo "$cluster-node$1"; }

say() { echo "ci/cluster: $*" >&2; }
fail() { say "$*"; exit 1; }

need_root() {
  [ "$(id -u)" = 0 ] || fail "needs root (network namespaces, cgroups, mounts): run it with sudo -E, or in a container or VM of your own"
}

# --- cgroups: everything the cluster starts lives below one cgroup, which is how `down` finds it, even after a run that died.

cgroup_v2() { [ -e /sys/fs/cgroup/cgroup.controllers ]; }
# Every mounted hierarchy: one with cgroup v2, one a controller with v1.
cgroup_hierarchies() {
  if cgroup_v2; then echo /sys/fs/cgroup; return; fi
  awk '$3 == "cgroup" { print $2 }' /proc/mounts
}
# Those and the one beside them that holds no controller: runc makes groups there, too.
cgroup_mounts() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts; }
# The hierarchy in which membership is looked up. The container runtime puts every container into it.
cgroup_main() {
  if cgroup_v2; then echo /sys/fs/cgroup; return; fi
  awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ { print $2; exit }' /proc/mounts
}
cgroup_create() { # NAME
  local hierarchy path
  for hierarchy in $(cgroup_hierarchies); do
    mkdir -p "$hierarchy/$1"
    cgroup_v2 || continue
    path=$hierarchy
    for part in ${1//\// }; do
      tr ' ' '\n' <"$path/cgroup.controllers" | while read -r controller; do
        echo "+$controller" >"$path/cgroup.subtree_control" 2>/dev/null || true
      done
      path=$path/$part
    done
  done
}
cgroup_processes() { # NAME
  find "$(cgroup_main)/$1" -name cgroup.procs -exec cat {} + 2>/dev/null
}

# --- processes

# start NAME COMMAND...: in the background, in the cluster's cgroup, with its output in log/NAME.log.
start() {
  local name=$1 descriptor; shift
  (
    # What the caller has open, a lock perhaps, is not the cluster's to keep.
    for descriptor in "/proc/$BASHPID/fd"/*; do
      descriptor=${descriptor##*/}
      [ "$descriptor" -le 2 ] || eval "exec $descriptor>&-"
    done
    echo "$BASHPID" >"$(cgroup_main)/$cluster/system/cgroup.procs"
    exec setsid "$@" >"$run/log/$name.log" 2>&1 </dev/null
  ) &
  echo $! >"$run/pid/$name"
  disown # or bash reports its end
}
# In the namespace of the control plane. Not `ip netns exec`: that remounts /sys and hides the cgroups.
in_control() { nsenter --net="/run/netns/$cluster" "$@"; }
# In the network and mount namespaces of a node.
in_node() { # NUMBER COMMAND...
  local pid; pid=$(cat "$run/pid/node$1-containerd" 2>/dev/null) || fail "node$1 is not up"
  shift
  nsenter --target "$pid" --net --mount "$@"
}
kubectl() { in_control "$kubernetes_bin/kubectl" --kubeconfig "$run/admin.kubeconfig" "$@"; }

# until_ok NAME COMMAND...: repeats the command until it succeeds, for at most a minute, and as long as NAME runs.
until_ok() {
  local name=$1 deadline=$((SECONDS + 60)); shift
  until "$@" >/dev/null 2>&1; do
    kill -0 "$(cat "$run/pid/$name")" 2>/dev/null || { tail -n 5 "$run/log/$name.log" >&2; fail "$name has ended: its last lines are above"; }
    [ "$SECONDS" -lt "$deadline" ] || { tail -n 5 "$run/log/$name.log" >&2; fail "$name did not come up within a minute: its last lines are above"; }
    sleep 0.1
  done
}

is_up() { [ -e "$run/admin.kubeconfig" ] && [ -e "/run/netns/$cluster" ] && kubectl get --raw /readyz >/dev/null 2>&1; }
node_numbers() { local f; for f in "$run"/pid/node*-kubelet; do [ -e "$f" ] || continue; f=${f##*/node}; echo "${f%-kubelet}"; done | sort -n; }

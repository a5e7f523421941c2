# A node: containerd, kubelet and kube-proxy in a network namespace and a mount namespace of their own, so that every node
# has the ports and the paths of a real one (/var/log/pods, /var/lib/kubelet, ...) and the machine's own stay untouched.
# shellcheck shell=bash disable=SC2154 # variables of common.sh

# The machine's paths that a node has for itself.
node_paths=(/var/lib/kubelet /var/log/pods /var/log/containers /var/lib/containerd /run/containerd /var/lib/cni)

make_node_namespace() { # NUMBER
  local number=$1 namespace address other
  namespace=$(node_namespace "$number"); address=$(node_ip "$number")
  ip netns add "$namespace"
  ip -n "$namespace" link add eth0 type veth peer name "node$number" netns "$cluster"
  ip -n "$namespace" link set lo up
  ip -n "$namespace" addr add "$address/24" dev eth0
  ip -n "$namespace" link set eth0 up
  ip -n "$namespace" route add default via "$api_ip"
  nsenter --net="/run/netns/$namespace" sysctl -qw net.ipv4.ip_forward=1
  in_control ip link set "node$number" master cluster0 up
  in_control ip route add "$(node_cidr "$number")" via "$address"
  for other in $(seq "$nodes"); do
    [ "$other" = "$number" ] || ip -n "$namespace" route add "$(node_cidr "$other")" via "$(node_ip "$other")"
  done
}

write_node_configuration() { # NUMBER
  local number=$1 folder=$run/node$1
  mkdir -p "$folder/cni"
  cat >"$folder/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "$(node_cidr "$number")", "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
  cat >"$folder/containerd.toml" <<TOML
version = 3
disabled_plugins = ["io.containerd.grpc.v1.nri", "io.containerd.nri.v1.nri"]
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "docker.io/local/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$folder/cni"
TOML
  echo "nameserver $dns_ip" >"$folder/resolv.conf"
  cat >"$folder/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_ip "$number")
readOnlyPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $run/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $run/pki/node$number-serving.crt
tlsPrivateKeyFile: $run/pki/node$number-serving.key
clusterDNS: [$dns_ip]
clusterDomain: cluster.local
resolvConf: $folder/resolv.conf
cgroupDriver: cgroupfs
cgroupRoot: /$cluster/node$number
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# As kubelets have it. Without it cadvisor is not asked for file systems, and then nothing is ever evicted: "failed to get summary stats".
localStorageCapacityIsolation: true
# The disk is the machine's: however full it is, no pod is evicted for it and no image removed. Those images come from no registry again.
evictionHard: {memory.available: "50Mi"}
imageGCHighThresholdPercent: 100
YAML
  local line
  for line in "${kubelet_lines[@]}"; do
    sed -i "/^${line%%:*}:/d" "$folder/kubelet.yaml"
    echo "$line" >>"$folder/kubelet.yaml"
  done
  cat >"$folder/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node$number
clusterCIDR: $pod_cidr
clientConnection: {kubeconfig: $run/proxy.kubeconfig}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  certificate "node$number" "/O=system:nodes/CN=system:node:node$number" "DNS:node$number" clientAuth
  certificate "node$number-serving" "/O=system:nodes/CN=system:node:node$number" "DNS:node$number,IP:$(node_ip "$number")" serverAuth
  kubeconfig "node$number" "node$number"
}

# Runs inside the node's namespaces (see start_node): gives the node its own paths, then becomes containerd.
node_main() { # NUMBER
  local folder=$run/node$1 path
  mount --make-rshared /
  for path in "${node_paths[@]}"; do
    mount --bind "$folder/root$path" "$path"
  done
  PATH=$containerd_bin:$PATH exec "$containerd_bin/containerd" -c "$folder/containerd.toml"
}

start_node() { # NUMBER
  local number=$1 namespace path image
  namespace=$(node_namespace "$number")
  for path in "${node_paths[@]}"; do
    mkdir -p "$run/node$number/root$path"
    # A place to mount on. What had to be made is noted, and removed by `down`.
    [ -d "$path" ] || { mkdir -p "$path"; echo "$path" >>"$run/made"; }
  done
  cgroup_create "$cluster/node$number"
  start "node$number-containerd" nsenter --net="/run/netns/$namespace" unshare --mount --propagation slave "$parts/../cluster" node-main "$number"
  until_ok "node$number-containerd" in_node "$number" "$containerd_bin/ctr" version
  for image in "$cache"/images-2/*.tar; do load_image "$number" "$image"; done
  start_kubelet "$number"
  start "node$number-kube-proxy" nsenter --target "$(cat "$run/pid/node$number-containerd")" --net --mount \
    "$kubernetes_bin/kube-proxy" --config "$run/node$number/proxy.yaml"
}

start_kubelet() { # NUMBER
  start "node$1-kubelet" nsenter --target "$(cat "$run/pid/node$1-containerd")" --net --mount \
    "$kubernetes_bin/kubelet" --config "$run/node$1/kubelet.yaml" --kubeconfig "$run/node$1.kubeconfig" \
    --hostname-override "node$1" --node-ip "$(node_ip "$1")" --cert-dir "$run/pki"
}

# The mount namespace that the first one made lives on in the node's other processes.
start_containerd_again() { # NUMBER
  PATH=$containerd_bin:$PATH start "node$1-containerd" nsenter --target "$(cat "$run/pid/node$1-kube-proxy")" --net --mount \
    "$containerd_bin/containerd" -c "$run/node$1/containerd.toml"
}

# With SIGKILL, and waits until it is gone. The log of what follows it goes on in a file of its own.
kill_one() { # NAME
  local pid; pid=$(cat "$run/pid/$1")
  kill -KILL "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && [ "$(ps -o stat= -p "$pid" | cut -c1)" != Z ]; do sleep 0.05; done
  mv "$run/log/$1.log" "$run/log/$1.$(date +%s).log"
}

load_image() { # NUMBER ARCHIVE
  local output
  output=$(in_node "$1" "$containerd_bin/ctr" -n k8s.io images import - <"$2" 2>&1) || fail "node$1 does not take $2: $output"
}

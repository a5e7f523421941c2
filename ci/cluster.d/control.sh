# The control plane: etcd, kube-apiserver, controller manager, scheduler and CoreDNS, in the namespace named as the cluster.
# shellcheck shell=bash disable=SC2154 # variables of common.sh

# certificate NAME SUBJECT SANS USAGE: signed by the cluster's CA.
certificate() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$run/pki/$1.key" -out "$run/pki/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$run/pki/$1.csr" -CA "$run/pki/ca.crt" -CAkey "$run/pki/ca.key" -CAcreateserial -days 30 -out "$run/pki/$1.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$3" "$4") 2>/dev/null
}

# kubeconfig NAME CERTIFICATE: whole in itself, so that it can be copied elsewhere.
kubeconfig() {
  local pki=$run/pki
  cat >"$run/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: $cluster, cluster: {server: "https://$api_ip:6443", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$pki/$2.crt"), client-key-data: $(base64 -w0 "$pki/$2.key")}}]
contexts: [{name: $cluster, context: {cluster: $cluster, user: $1}}]
current-context: $cluster
YAML
  chmod 600 "$run/$1.kubeconfig"
}

make_certificates() {
  mkdir -p "$run/pki"; chmod 700 "$run/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$run/pki/ca.key" -out "$run/pki/ca.crt" -days 30 -subj /CN=kubernetes-ca 2>/dev/null
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$run/pki/sa.key" 2>/dev/null
  openssl pkey -in "$run/pki/sa.key" -pubout -out "$run/pki/sa.pub" 2>/dev/null
  local suffix=kubernetes.default.svc.cluster.local
  certificate apiserver /CN=kube-apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:$suffix,IP:127.0.0.1,IP:$api_ip,IP:$service_ip" serverAuth
  certificate apiserver-kubelet /O=system:masters/CN=apiserver-kubelet DNS:apiserver clientAuth
  certificate admin /O=system:masters/CN=admin DNS:admin clientAuth
  certificate controller-manager /CN=system:kube-controller-manager DNS:controller-manager clientAuth
  certificate scheduler /CN=system:kube-scheduler DNS:scheduler clientAuth
  certificate proxy /CN=system:kube-proxy DNS:proxy clientAuth
  local name; for name in admin controller-manager scheduler proxy; do kubeconfig $name $name; done
}

make_control_namespace() {
  ip netns add "$cluster"
  in_control ip link set lo up
  # A bridge: the nodes are plugged into it, and it carries the addresses of the API server and of the DNS.
  in_control ip link add cluster0 type bridge
  in_control ip addr add "$api_ip/24" dev cluster0
  in_control ip addr add "$dns_ip/32" dev cluster0
  in_control ip link set cluster0 up
  # Where no port is plugged in the bridge has no carrier, and still has to be a way to itself.
  in_control ip route add default dev cluster0
  in_control sysctl -qw net.ipv4.ip_forward=1
}

# start_control API_SERVER_FLAGS...: until the API server is ready.
start_control() {
  local pki=$run/pki
  start etcd nsenter --net="/run/netns/$cluster" "$etcd_bin/etcd" --data-dir "$run/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  start kube-apiserver nsenter --net="/run/netns/$cluster" "$kubernetes_bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="$api_ip" --advertise-address="$api_ip" --secure-port=6443 --service-cluster-ip-range="$service_cidr" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --authorization-mode=Node,RBAC --allow-privileged "$@"
  until_ok kube-apiserver kubectl get --raw /readyz
}

start_controllers() {
  local file=$run/controller-manager.kubeconfig
  start kube-controller-manager nsenter --net="/run/netns/$cluster" "$kubernetes_bin/kube-controller-manager" --leader-elect=false --bind-address=127.0.0.1 \
    --kubeconfig "$file" --authentication-kubeconfig "$file" --authorization-kubeconfig "$file" --use-service-account-credentials \
    --service-account-private-key-file="$run/pki/sa.key" --root-ca-file="$run/pki/ca.crt" \
    --cluster-signing-cert-file="$run/pki/ca.crt" --cluster-signing-key-file="$run/pki/ca.key"
  file=$run/scheduler.kubeconfig
  start kube-scheduler nsenter --net="/run/netns/$cluster" "$kubernetes_bin/kube-scheduler" --leader-elect=false --bind-address=127.0.0.1 \
    --kubeconfig "$file" --authentication-kubeconfig "$file" --authorization-kubeconfig "$file"
  cat >"$run/Corefile" <<COREFILE
.:53 {
  bind $dns_ip
  errors
  kubernetes cluster.local {
    kubeconfig $run/admin.kubeconfig $cluster
    pods insecure
  }
  cache 5
}
COREFILE
  start coredns nsenter --net="/run/netns/$cluster" "$coredns_bin/coredns" -conf "$run/Corefile"
}

# Builds the components that are not in the cache yet, from Go modules, and installs what Debian has packages for.
# shellcheck shell=bash disable=SC2154 # variables of common.sh

# The Debian package behind each command or file that a cluster needs.
packages() {
  local entry
  for entry in runc:runc containernetworking-plugins:/usr/lib/cni/ptp iproute2:ip nftables:nft busybox-static:busybox openssl:openssl util-linux:nsenter; do
    command -v "${entry#*:}" >/dev/null || [ -e "${entry#*:}" ] || echo "${entry%%:*}"
  done
}

install_packages() {
  local missing; missing=$(packages | xargs)
  [ -z "$missing" ] && return
  need_root
  command -v apt-get >/dev/null || fail "lacks $missing, and there is no apt-get to install them with: install them as this system does"
  say "installing $missing"
  # shellcheck disable=SC2086 # a list of words
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing; } >&2
}

need_go() {
  command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null || fail "lacks Go, which builds $1 from its modules (once a machine): see go.dev/doc/install; any version since 1.21 fetches the one it needs"
}

# component NAME VERSION MINUTES: whether it has to be built. Built into a folder aside, which is renamed when it is whole.
component() {
  local folder=$cache/$1-$2
  [ -e "$folder/.built" ] && return 1
  need_go "$1"
  say "building $1 $2: $3 min or so on two cores, downloads included; cached in $cache"
  rm -rf "$folder" "$folder.tmp"; mkdir -p "$folder.tmp"
}
done_with() { touch "$cache/$1-$2.tmp/.built"; mv "$cache/$1-$2.tmp" "$cache/$1-$2"; say "built $1 $2"; }

# Runs a long command and says once in half a minute that it is still at it.
progress() {
  local what=$1 begun=$SECONDS pid; shift
  "$@" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
    kill -0 "$pid" 2>/dev/null && say "still building $what ($((SECONDS - begun)) s)"
  done
  wait "$pid" || fail "building $what failed: its output is above"
}

build() {
  install_packages
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock --nonblock 9 || { say "waiting for another build into $cache"; flock 9; }
  local stamp=k8s.io/component-base/version out name
  if component kubernetes "$KUBERNETES_VERSION" 8; then
    out=$kubernetes_bin.tmp
    # Without these the components report version v0.0.0.
    progress kubernetes go build -C "$parts/kubernetes" -buildvcs=false -o "$out/kubernetes" \
      -ldflags "-s -w -X $stamp.gitVersion=v$KUBERNETES_VERSION -X $stamp.gitMajor=${KUBERNETES_VERSION%%.*} -X $stamp.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION")" .
    for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubemark kubectl; do ln -s kubernetes "$out/$name"; done
    done_with kubernetes "$KUBERNETES_VERSION"
  fi
  if component etcd "$ETCD_VERSION" 1; then
    progress etcd go build -C "$parts/etcd" -buildvcs=false -ldflags "-s -w" -o "$etcd_bin.tmp/etcd" .
    done_with etcd "$ETCD_VERSION"
  fi
  if component containerd "$CONTAINERD_VERSION" 3; then
    progress containerd env GOBIN="$containerd_bin.tmp" go install -ldflags "-s -w" \
      github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}@v"$CONTAINERD_VERSION"
    done_with containerd "$CONTAINERD_VERSION"
  fi
  if component coredns "$COREDNS_VERSION" 3; then
    progress coredns env GOBIN="$coredns_bin.tmp" go install -ldflags "-s -w" github.com/coredns/coredns@v"$COREDNS_VERSION"
    done_with coredns "$COREDNS_VERSION"
  fi
  exec 9>&-
  build_images
}

# The two images that every cluster has: what holds a pod together, and a shell for tests. There is no registry to pull from.
build_images() {
  local images=$cache/images-2 stage name library
  [ -e "$images/.built" ] && return
  command -v gcc >/dev/null || fail "lacks a C compiler for the pause image: apt-get install gcc libc6-dev"
  stage=$(mktemp -d); rm -rf "$images"; mkdir -p "$images" "$stage/pause" "$stage/busybox/bin" "$stage/busybox/etc" "$stage/busybox/tmp"
  gcc -static -O2 -o "$stage/pause/pause" "$parts/pause.c"
  "$parts/../image.d/archive" "$stage/pause" local/pause:1 /pause >"$images/pause.tar"
  cp "$(command -v busybox)" "$stage/busybox/bin/busybox"
  for name in sh sleep echo cat false true date seq ls kill head tail wget nslookup nc dd env; do ln -s busybox "$stage/busybox/bin/$name"; done
  # A program linked statically against glibc loads these to resolve a name, and crashes where they are not.
  for library in libc.so.6 libnss_dns.so.2 libnss_files.so.2 libresolv.so.2 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1; do
    library=$(ldconfig -p | awk -v name="$library" '$1 == name { print $NF; exit }')
    [ -z "$library" ] || install -D "$library" "$stage/busybox$library"
  done
  echo "hosts: files dns" >"$stage/busybox/etc/nsswitch.conf"
  "$parts/../image.d/archive" "$stage/busybox" local/busybox:1 /bin/sh >"$images/busybox.tar"
  rm -rf "$stage"; touch "$images/.built"
}

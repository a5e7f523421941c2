# Gets Prometheus: one with its Kubernetes client, built from its Go module; where that cannot be had, Debian's, which has none.
# shellcheck shell=bash disable=SC2034 # `programs` is read by the file that sources this one

PROMETHEUS_VERSION=0.311.0 # the module's; the program calls itself 3.11.0
PROMETHEUS_SUM=h1:H9X8cuMJ0zk+P8epzXjcCUdd26kzG50OsEaq8ypYQ3M=
prometheus=${XDG_CACHE_HOME:-$HOME/.cache}/nodetap/prometheus

# Built into a folder aside, which is renamed when it is whole. Fails with a reason on standard error.
build_prometheus() {
  local built=$1 module=github.com/prometheus/prometheus got sum folder
  command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null || { say "lacks Go to build Prometheus with: see go.dev/doc/install" >&2; return 1; }
  mkdir -p "$prometheus"
  (
    exec 9>"$prometheus/.lock"
    flock 9
    [ ! -e "$built/.built" ] || exit 0
    say "building Prometheus $PROMETHEUS_VERSION: 5 min or so on two cores, once a machine; cached in $prometheus"
    got=$(go mod download -json "$module@v$PROMETHEUS_VERSION") || { say "cannot get $module" >&2; exit 1; }
    sum=$(sed -n 's/.*"Sum": "\(.*\)".*/\1/p' <<<"$got")
    folder=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$got")
    [ "$sum" = "$PROMETHEUS_SUM" ] || { say "$module@v$PROMETHEUS_VERSION has the checksum $sum and not $PROMETHEUS_SUM" >&2; exit 1; }
    rm -rf "$built" "$built.tmp"; mkdir -p "$built.tmp"
    # Its go.work names folders that its module does not hold. Of its 25 ways of discovery, one.
    GOWORK=off go build -C "$folder" -buildvcs=false -tags remove_all_sd,enable_kubernetes_sd \
      -ldflags "-s -w -X github.com/prometheus/common/version.Version=$(cat "$folder/VERSION")" \
      -o "$built.tmp/" ./cmd/prometheus ./cmd/promtool || { rm -rf "$built.tmp"; say "Prometheus cannot be built: why is above" >&2; exit 1; }
    touch "$built.tmp/.built"; mv "$built.tmp" "$built"
  )
}

# Unpacked and not installed: the package would start it as a service.
get_debian_prometheus() {
  [ ! -x "$prometheus/usr/bin/promtool" ] || return 0
  say "getting Debian's Prometheus"
  mkdir -p "$prometheus"
  (
    cd "$prometheus" || exit
    apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus 2>/dev/null; } || exit
    dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb
  )
}

# Sets `programs` to the folder of prometheus and promtool.
get_prometheus() {
  programs=$prometheus/built-$PROMETHEUS_VERSION
  [ ! -e "$programs/.built" ] || return 0
  if build_prometheus "$programs"; then return; fi
  say "*** THE TARGETS ARE NOT FOUND BY PROMETHEUS ITSELF IN THIS RUN: Debian's build has no Kubernetes client ***" >&2
  programs=$prometheus/usr/bin
  get_debian_prometheus
}

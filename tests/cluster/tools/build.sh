#!/usr/bin/env bash
# Builds the Kubernetes of the tests (one go.mod of tool lines) once, and prints the folder that holds it.
#
# Enters: go.mod and go.sum beside this file. Leaves: a folder of binaries in the user's cache, under a key made of
# both files and the build flags, so that a fresh clone on the same machine starts in seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

kubernetes=$(sed -n 's/^require k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' go.mod)
minor=$(cut -d. -f2 <<<"$kubernetes")
version=k8s.io/component-base/version
ldflags="-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=$minor -X $version.gitTreeState=clean"
# The runtime is used with overlayfs alone: without these tags containerd wants the headers of btrfs and device mapper.
tags=no_btrfs,no_zfs,no_devmapper
flags=(-trimpath -ldflags "$ldflags" -tags "$tags")
export CGO_ENABLED=0

say() { printf 'cluster: %s\n' "$*" >&2; }

# Not by Go: a warm cache is of use without it.
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac
key=$(cat go.mod go.sum <(printf '%s ' "${flags[@]}" "$arch") | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-${HOME:?"is not set: it says where the cache is"}/.cache}/pullguard
bin=$cache/kubernetes-$key
mkdir -p "$cache"
# Two makes side by side build once.
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
    say "waiting for another build of the same binaries"
    flock 9
fi
if [ -x "$bin/kubelet" ]; then
    printf '%s\n' "$bin"
    exit 0
fi

# From 1.21 on a Go fetches by itself the newer one that go.mod asks for.
recent() { printf '1.21\n%s\n' "$1" | sort --version-sort --check=quiet; }
offered() { apt-cache policy golang-go 2>/dev/null | sed -n 's/^ *Candidate: [0-9]*:\([0-9.]*\).*/\1/p'; }
if ! command -v go >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update >/dev/null 2>&1 || true
    if found=$(offered) && [ -n "$found" ] && recent "$found"; then
        say "installing the Debian package golang-go ($found)"
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends golang-go >/dev/null
    fi
fi
if ! command -v go >/dev/null; then
    say "Go is missing; install Go 1.26 or newer (https://go.dev/dl), it builds the Kubernetes of the tests"
    exit 1
fi

# watch WHAT LIMIT PATTERN COMMAND...: runs it, and every 20 s says how many lines of PATTERN it has printed, out of how
# many, and how long the rest takes at that pace. What it printed is shown if it fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
watch() {
    local what=$1 limit=$2 pattern=$3 begun=$SECONDS shown=$SECONDS
    shift 3
    "$@" >"$log" 2>&1 &
    local job=$!
    while kill -0 "$job" 2>/dev/null; do
        sleep 1
        [ $((SECONDS - shown)) -ge 20 ] || continue
        shown=$SECONDS
        local done_now took=$((SECONDS - begun)) rest=
        done_now=$(grep -c "$pattern" "$log" || true)
        if [ "$done_now" -gt 50 ] && [ "$limit" -gt "$done_now" ]; then
            # The last steps link big programs, which print no line of their own.
            rest=", about $((took * (limit - done_now) / done_now / 60 + 1)) min to go"
        fi
        say "$what: $done_now of $limit, after $took s$rest"
    done
    if ! wait "$job"; then
        say "$what: failed; it ended with"
        tail -n 15 "$log" >&2
        exit 1
    fi
}

say "building Kubernetes $kubernetes, etcd, containerd and a registry from source (once; 8 to 15 minutes on 2 cores)"
start=$SECONDS
partial=$cache/partial-$key
mkdir -p "$partial"
watch "fetching modules" "$(grep -c ' // indirect$' go.mod)" '^go: downloading' go list "${flags[@]}" -deps -f '{{.ImportPath}}' tool
packages=$(grep -vc '^go: ' "$log")
watch "compiling packages" "$packages" '^[a-zA-Z0-9._/-]*$' go build -v "${flags[@]}" -o "$partial/" tool
# etcd's main package is called server.
mv "$partial/server" "$partial/etcd"
rm -rf "$bin"
mv "$partial" "$bin"
# Older keys are of older go.mods: nothing uses them again.
find "$cache" -maxdepth 1 -name 'kubernetes-*' ! -name "kubernetes-$key" -mtime +30 -exec rm -rf {} +
say "built in $((SECONDS - start)) s, kept in the cache"
printf '%s\n' "$bin"

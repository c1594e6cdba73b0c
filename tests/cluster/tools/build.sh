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

say() { printf '%s\n' "$*" >&2; }

if ! command -v go >/dev/null; then
    say "cluster: Go is missing; install Go 1.26 or newer (https://go.dev/dl), it builds the Kubernetes of the tests"
    exit 1
fi

key=$(cat go.mod go.sum <(printf '%s ' "${flags[@]}" "$(go env GOARCH)") | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pullguard
bin=$cache/kubernetes-$key
mkdir -p "$cache"
# Two makes side by side build once.
exec 9>"$cache/lock"
flock 9
if [ -x "$bin/kubelet" ]; then
    printf '%s\n' "$bin"
    exit 0
fi

say "cluster: building Kubernetes $kubernetes, etcd, containerd and a registry from source (once; about 15 minutes on 2 cores)"
start=$SECONDS
partial=$cache/partial-$key
mkdir -p "$partial"
total=$(go list "${flags[@]}" -deps tool | wc -l)
go build -v "${flags[@]}" -o "$partial/" tool 2>&1 | awk -v total="$total" '
    /^go: downloading/ { if (++fetched % 100 == 0) { print "cluster: " fetched " modules fetched"; fflush() } next }
    /^[a-zA-Z0-9._\/-]+$/ { if (++built % 150 == 0) { print "cluster: " built " of at most " total " packages built"; fflush() } next }
    { print; fflush() }' >&2
# etcd's main package is called server.
mv "$partial/server" "$partial/etcd"
rm -rf "$bin"
mv "$partial" "$bin"
# Older keys are of older go.mods: nothing uses them again.
find "$cache" -maxdepth 1 -name 'kubernetes-*' ! -name "kubernetes-$key" -mtime +30 -exec rm -rf {} +
say "cluster: built in $((SECONDS - start)) s, kept in the cache"
printf '%s\n' "$bin"

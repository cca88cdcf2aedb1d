#!/bin/bash
# Usage: build.sh [SUITE]...
# Builds the images of the lab from bin/: samba-pwsync/dc:SUITE-CHECKOUT, a Samba AD DC on Debian SUITE (default bookworm; bullseye,
# trixie, trixie-backports and forky are known to work) with samba-pwsync installed by `make install`, and samba-pwsync/sandbox:CHECKOUT.
# Several suites are built side by side.
# A change of the code redoes only the last layer of each. CHECKOUT stands for the folder of this checkout (as in integration/lab),
# so that two of them do not use each other's.
set -euo pipefail

[ $# -gt 0 ] || set -- bookworm
suites=$(printf '%s\n' "$@" | sort -u)
here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")

checkout=$(printf %s "$top" | sha256sum | cut -c1-8)
"$top/integration/docker.sh"

# Runs a command for each word of a list, side by side but for the first, which may have to install what all of them need.
each() {
	local list=$1 word pids= status=0
	shift
	for word in $list; do
		if [ -z "$pids" ]; then "$@" "$word" || return 1; pids=none; continue; fi
		"$@" "$word" &
		pids="$pids $!"
	done
	for word in ${pids#none}; do wait "$word" || status=1; done
	return $status
}
each "$(sed s/-backports// <<<"$suites" | sort -u)" "$here/base.sh"

stage=$(mktemp -d)
trap 'rm -rf --one-file-system "$stage"' EXIT

mkdir -p "$stage/dc/root" "$stage/sandbox"
cp "$here/dc/Dockerfile" "$stage/dc/"
cp "$here/sandbox/Dockerfile" "$top/bin/cloud-sandbox" "$stage/sandbox/"
make -s -C "$top" install-files DESTDIR="$stage/dc/root"
cp -a "$here/dc/rootfs/." "$stage/dc/root/"
(cd "$top" && CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -trimpath" go build -o "$stage/dc/root/usr/local/bin/clock" ./integration/image/clock)

# The packages are a matter of a minute, once; what a build says is shown only then, or when it fails.
label=org.samba-pwsync.image
build() {
	local image=$1 log
	log=$stage/${image//[\/:]/-}.log
	shift
	docker image inspect "$image" >/dev/null 2>&1 || echo "image: building $image" >&2
	docker build -t "$image" --label "$label" "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}
dc() { build "samba-pwsync/dc:$1-$checkout" --build-arg BASE="samba-pwsync/debian:${1%-backports}" --build-arg SUITE="$1" "$stage/dc"; }
build "samba-pwsync/sandbox:$checkout" "$stage/sandbox"
each "$suites" dc
# What the new ones have replaced.
docker image prune -f --filter "label=$label" >/dev/null

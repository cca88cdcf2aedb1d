#!/bin/bash
# Usage: build.sh [SUITE]
# Builds the two images of the lab from bin/: samba-pwsync/dc:SUITE-CHECKOUT, a Samba AD DC on Debian SUITE (default bookworm; bullseye,
# trixie, trixie-backports and forky are known to work) with samba-pwsync installed by `make install`, and samba-pwsync/sandbox:CHECKOUT.
# A change of the code redoes only the last layer of each. CHECKOUT stands for the folder of this checkout (as in integration/lab),
# so that two of them do not use each other's.
set -euo pipefail

suite=${1:-bookworm}
here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")

checkout=$(printf %s "$top" | sha256sum | cut -c1-8)
"$top/integration/docker.sh"
"$here/base.sh" "$suite"

stage=$(mktemp -d)
trap 'rm -rf --one-file-system "$stage"' EXIT

mkdir -p "$stage/dc/root" "$stage/sandbox"
cp "$here/dc/Dockerfile" "$stage/dc/"
cp "$here/sandbox/Dockerfile" "$top/bin/cloud-sandbox" "$stage/sandbox/"
make -s -C "$top" install-files DESTDIR="$stage/dc/root"
cp -a "$here/dc/rootfs/." "$stage/dc/root/"

# The packages are a matter of a minute, once; what a build says is shown only then, or when it fails.
label=org.samba-pwsync.image
build() {
	local image=$1
	shift
	if docker image inspect "$image" >/dev/null 2>&1; then
		docker build -t "$image" --label "$label" "$@" >"$stage/log" 2>&1 || { cat "$stage/log" >&2; return 1; }
	else
		echo "image: building $image" >&2
		docker build -t "$image" --label "$label" "$@" >&2
	fi
}
build "samba-pwsync/dc:$suite-$checkout" --build-arg BASE="samba-pwsync/debian:${suite%-backports}" --build-arg SUITE="$suite" "$stage/dc"
build "samba-pwsync/sandbox:$checkout" "$stage/sandbox"
# What the new ones have replaced.
docker image prune -f --filter "label=$label" >/dev/null

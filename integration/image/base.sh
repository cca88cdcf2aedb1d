#!/bin/bash
# Usage: base.sh SUITE
# Makes the image samba-pwsync/debian:SUITE, a minimal Debian: pulled from the registry where one is reachable, else built with
# debootstrap (root; half a minute). Does nothing when the image is there.
set -euo pipefail

suite=${1:?usage: base.sh SUITE}
suite=${suite%-backports}
image=samba-pwsync/debian:$suite

say() { echo "base image: $*" >&2; }

docker image inspect "$image" >/dev/null 2>&1 && exit 0

if timeout 120 docker pull -q "debian:$suite-slim" >/dev/null 2>&1; then
	docker tag "debian:$suite-slim" "$image"
	say "pulled debian:$suite-slim"
	exit 0
fi

if [ "$(id -u)" != 0 ]; then
	say "debian:$suite-slim cannot be pulled, and building it with debootstrap needs root: run this as root"
	exit 1
fi
if ! command -v debootstrap >/dev/null; then
	say "installing debootstrap"
	apt-get update -qq >&2 || true
	if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >&2; then
		say "debian:$suite-slim cannot be pulled and debootstrap cannot be installed; do one of them by hand and try again"
		exit 1
	fi
fi

# This machine's own mirror, unless DEBIAN_MIRROR names another; if apt knows none yet, debootstrap's.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -m1 '/debian/$' || true)}

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
# A suite that is younger than this machine's debootstrap is built by sid's script, which all of them share.
script=
[ -e "/usr/share/debootstrap/scripts/$suite" ] || script=sid
say "no registry answers, so building Debian $suite with debootstrap (about half a minute)"
if ! debootstrap --variant=minbase "$suite" "$work/root" ${mirror:+"$mirror" $script} >"$work/log" 2>&1; then
	tail -5 "$work/log" >&2
	say "debootstrap of Debian $suite failed (above: the end of its log)"
	exit 1
fi
rm -rf "$work"/root/var/cache/apt/*.bin "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
tar -C "$work/root" -c . | docker import - "$image" >/dev/null
say "built $image"

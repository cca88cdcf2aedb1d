#!/bin/bash
# Makes sure that a Docker engine answers: installs Debian's packages and starts the daemon where that is possible.
# Prints nothing when the engine is there already; ends with one sentence that says what to do when it cannot be had.
set -euo pipefail

say() { echo "docker: $*" >&2; }
answers() { timeout 20 docker info >/dev/null 2>&1; }

answers && exit 0

if [ "$(id -u)" != 0 ]; then
	say "no Docker engine answers; start it, or add yourself to the group docker, or run this as root, which installs it on Debian"
	exit 1
fi

if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
	if ! command -v apt-get >/dev/null; then
		say "there is no Docker engine here and no apt-get to install it with; install Docker (https://docs.docker.com/engine/install/) and try again"
		exit 1
	fi
	say "installing Docker from Debian's packages"
	export DEBIAN_FRONTEND=noninteractive
	packages=docker.io
	apt-get update -qq >&2 || true
	# From trixie on the command line tool is a package of its own.
	if apt-cache show docker-cli >/dev/null 2>&1; then packages="$packages docker-cli"; fi
	# shellcheck disable=SC2086
	if ! apt-get install -y -qq --no-install-recommends $packages iptables >&2; then
		say "Debian's package docker.io cannot be installed here; install Docker by hand and try again"
		exit 1
	fi
fi

if ! answers; then
	say "starting the engine"
	systemctl start docker >/dev/null 2>&1 || service docker start >/dev/null 2>&1 || true
	for _ in $(seq 10); do answers && exit 0; sleep 1; done
	# No service manager: start the daemon directly. It outlives this script, as the service would.
	if ! pidof dockerd >/dev/null; then
		setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
	fi
	for _ in $(seq 30); do answers && exit 0; sleep 1; done
	say "the engine is installed but does not answer; its log (/var/log/dockerd.log or journalctl -u docker) says why"
	exit 1
fi

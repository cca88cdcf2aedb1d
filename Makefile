# samba-pwsync. `make help` lists what there is; `make demo` and `make test` are the two commands that show it.
# Both want root on a Debian machine with git, make and Go, and install the rest (a C compiler for -race, Docker, debootstrap).

SUITE   ?= bookworm
SUITES  ?= bullseye bookworm trixie trixie-backports forky
PREFIX  ?= /usr
DESTDIR ?=
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

SBINDIR    = $(DESTDIR)$(PREFIX)/sbin
SYSCONFDIR = $(DESTDIR)/etc
UNITDIR    = $(DESTDIR)$(PREFIX)/lib/systemd/system
MANDIR     = $(DESTDIR)$(PREFIX)/share/man
DOCDIR     = $(DESTDIR)$(PREFIX)/share/doc/samba-pwsync

# The hook runs inside Samba's transaction: it has to start in a moment, so its size is watched.
HOOK_LIMIT = 4194304

GOBUILD = go build -ldflags "-s -w -X main.version=$(VERSION)"
LAB     = SAMBA_SUITE=$(SUITE)

# One set of flags for everything but the race tests, because Microsoft's SDK costs 4 GB and minutes for each.
build lint bench compat torture: export CGO_ENABLED = 0
build lint bench compat torture: export GOFLAGS := $(GOFLAGS) -trimpath

.DEFAULT_GOAL := help
.PHONY: help build images all-images demo test integration compat bench bench-scale torture lint install install-files install-docs clean need-go need-cc need-bench

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

build: need-go ## the binaries, in bin/ (minutes the first time: Microsoft's SDK is large)
	@mkdir -p bin
	@echo "building (minutes the first time: Microsoft's SDK is large)"
	@$(GOBUILD) -o bin/ ./cmd/...
	@size=$$(wc -c <bin/samba-pwsync-hook); test $$size -lt $(HOOK_LIMIT) || \
		{ echo "samba-pwsync-hook has $$size bytes, more than $(HOOK_LIMIT)" >&2; exit 1; }

images: build ## the images of the lab: a Samba AD DC (SUITE=bookworm) and the cloud sandbox
	@integration/image/build.sh $(SUITE)

all-images: build
	@integration/image/build.sh $(SUITE) $(SUITES)

demo: images ## a password's way from a real DC to both clouds, and those that must not be sent
	@$(LAB) go run ./integration/demo

test: lint all-images need-cc ## everything: vet, staticcheck, unit tests with -race, integration; totals last
	@$(LAB) .ci/tests unit integration

integration: all-images need-cc ## the integration tests alone
	@$(LAB) .ci/tests integration

compat: all-images ## every way to change a password on every Samba, into docs/compatibility.md (minutes)
	PWSYNC_INTEGRATION=required go test ./integration/compat -count 1 -timeout 60m \
		-columns $$(echo $(SUITES) | tr ' ' ,) -write $(CURDIR)/docs/compatibility.md
	SAMBA_SUITES="$(SUITES)" PWSYNC_INTEGRATION=required go test ./integration/nameless -count 1 -timeout 60m
	SAMBA_SUITES="$(SUITES)" PWSYNC_INTEGRATION=required go test ./integration/parity -count 1 -v
	PWSYNC_ROUNDS=200 PWSYNC_INTEGRATION=required go test ./integration/twodc -count 1 -timeout 60m -v

bench: images need-bench ## benchmarks, side by side with the alternatives: tables for docs/benchmarks.md (half an hour; an idle machine, root)
	go test -run '^$$' -bench . -benchmem ./...
	go run ./integration/bench/hook
	go run ./integration/bench/breached
	go run ./integration/bench/forwarder
	@$(LAB) go run ./integration/bench/dc

bench-scale: images ## what captures without a name and the watch cost in domains of 1,000 to 20,000 accounts
	@$(LAB) go run ./integration/scale

torture: need-go ## the long forms of the torture tests, hours: PARTS=hook,model to choose, N= trials of each, SEED=, WRITE=1 for docs/reliability.md
	@$(LAB) go run ./integration/torture -n $(or $(N),0) -seed $(or $(SEED),0) -parts "$(PARTS)" $(if $(WRITE),-write docs/reliability.md)

lint: need-go ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted as gofmt does:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go tool staticcheck ./...

install: build install-files ## onto this DC (DESTDIR, PREFIX=/usr)

# Without building, for packages and images. Paths in the snippet and in the units follow PREFIX.
install-files: install-docs
	install -d $(SBINDIR) $(SYSCONFDIR)/samba/smb.conf.d
	install -m 0755 bin/samba-pwsync-hook bin/samba-pwsync $(SBINDIR)/
	sed 's,/usr/sbin/,$(PREFIX)/sbin/,' smb.conf.d/samba-pwsync.conf >$(SYSCONFDIR)/samba/smb.conf.d/samba-pwsync.conf
	chmod 0644 $(SYSCONFDIR)/samba/smb.conf.d/samba-pwsync.conf
	@for unit in $(wildcard packaging/systemd/*.service packaging/systemd/*.path packaging/systemd/*.timer packaging/systemd/*.target); do \
		install -D -m 0644 $$unit $(UNITDIR)/$${unit##*/} && \
		sed -i 's,=/usr/sbin/,=$(PREFIX)/sbin/,' $(UNITDIR)/$${unit##*/} || exit 1; done
	@for page in $(wildcard docs/man/*.[1-8]); do \
		install -D -m 0644 $$page $(MANDIR)/man$${page##*.}/$${page##*/} || exit 1; done

# The documents lie in one folder there, without the sources: their links are made to fit.
install-docs:
	@for page in README.md $(wildcard docs/*.md) docs/samba-pwsync.example.toml; do \
		install -D -m 0644 $$page $(DOCDIR)/$${page##*/} || exit 1; done
	@sed -i -E 's,\]\(docs/,](,g; s,\[([^]]*)\]\((\.\./|samba/)[^)]*\),\1,g' $(DOCDIR)/*.md

clean: ## remove bin/ and what a killed lab left behind
	rm -rf bin
	@! docker info >/dev/null 2>&1 || go run ./integration/demo -clean

need-go:
	@command -v go >/dev/null || { echo "Go is missing: install it from https://go.dev/dl/ (1.26 or later) and put it into PATH" >&2; exit 1; }

# The race detector wants a C compiler.
need-cc:
	@command -v gcc >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev; } || \
		{ echo "the race detector needs a C compiler: install gcc and libc6-dev" >&2; exit 1; }

# What the hook is compared with, and a C compiler for what stands in for Samba.
need-bench: need-cc
	@missing=; for tool in pwscore cracklib-check python3 bash; do command -v $$tool >/dev/null || missing=yes; done; \
	test -z "$$missing" && test -e /var/cache/cracklib/cracklib_dict.pwd || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libpwquality-tools cracklib-runtime python3 bash; } || \
		{ echo "the benchmarks compare with other checkers: install libpwquality-tools, cracklib-runtime, python3 and bash" >&2; exit 1; }

# The interface of this repository. `make demo` alone shows the main job on a fresh Debian 12 machine (root, Rust), `make test` alone
# passes; both set up what they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

CARGO_TARGET_DIR ?= target
NEXTEST := cargo nextest run --no-fail-fast
export PREFIX DESTDIR

.PHONY: help setup build demo test test-units test-lab bench soak lint install

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Debian packages, cargo-nextest, the pinned nats-server
	@scripts/setup

build: setup ## all programs, debug
	cargo build --workspace --bins

demo: build ## five real nodes: apply a platform, pull the plug of the busiest, see everything go on (LEASE=2000: another lease, in ms)
	$(CARGO_TARGET_DIR)/debug/tour $(if $(LEASE),--lease $(LEASE))

test: test-units test-lab ## everything that must hold

test-units: setup ## the crates, each by itself; drivers against a real systemd and kernel
	cargo build --workspace --bins
	$(NEXTEST) --workspace --exclude cluster-e2e
	cargo test --quiet --workspace --exclude cluster-e2e --doc

test-lab: setup ## whole clusters in the lab
	cargo build --workspace --bins
	$(NEXTEST) -p cluster-e2e --lib --test lab
	cargo test -p cluster-e2e --test cluster
	cargo test -p cluster-e2e --test install

bench: setup ## figures, a line of JSON each, also in target/bench.jsonl (ONLY=name: that one)
	scripts/bench $(ONLY)

soak: setup ## the lease by millions of acquisitions, then faults at random on real nodes (MINUTES=10 SEED=1; FIGURES=yes: all figures)
	SEED=$(or $(SEED),1) scripts/soak $(MINUTES)

lint: setup ## formatting, clippy, and the rules of scripts/lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/lint

install: ## programs and unit files for this machine (PREFIX=/usr DESTDIR=)
	scripts/install

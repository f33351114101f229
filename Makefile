# The interface of this repository. `make demo` alone shows the main job on a fresh Debian 12 machine (root, Rust), `make test` alone passes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

NEXTEST := cargo nextest run --no-fail-fast
PREFIX ?= /usr

.PHONY: help setup build demo test test-units test-lab bench soak lint install clean-labs

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Debian packages, cargo-nextest, the pinned nats-server
	@scripts/setup

build: setup
	cargo build --workspace --bins

demo: build ## five real nodes: apply a platform, crash the busiest node, see it all go on
	target/debug/tour

test: setup test-units test-lab ## everything that must hold

test-units: setup
	cargo build --workspace --bins
	$(NEXTEST) --workspace --exclude cluster-e2e
	cargo test --quiet --workspace --exclude cluster-e2e --doc

test-lab: setup
	cargo build --workspace --bins
	$(NEXTEST) -p cluster-e2e --lib --test lab --test drivers
	cargo test -p cluster-e2e --test cluster

bench: setup ## figures, one JSON line each, also in target/bench.jsonl (ONLY=name runs one)
	scripts/bench "$(ONLY)"

soak: setup ## long runs: MINUTES=m SEED=s
	scripts/soak "$(MINUTES)" "$(SEED)"

lint: setup ## formatting, clippy, each crate alone
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/lint

install: ## binaries and unit files for this machine (DESTDIR, PREFIX)
	scripts/install

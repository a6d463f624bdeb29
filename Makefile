# Commands a person would guess. `make demo` and `make test` set up a fresh machine by themselves.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/everwhen/target
export EVERWHEN_CACHE ?= $(HOME)/.cache/everwhen

.PHONY: help demo test soak bench lint fmt build

help: ## Lists these commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## Builds the server binary
	@scripts/setup build
	cargo build --locked --bin everwhen

demo: ## Plays three scenarios end to end; needs no account and no broker
	@scripts/setup build
	cargo build --locked --bin everwhen
	@$(CARGO_TARGET_DIR)/debug/everwhen demo

test: ## Runs all tests, with a real Kafka broker, the BigQuery emulator, an S3 server and real clients
	@scripts/setup test
	cargo build --locked --bin everwhen
	cargo test --locked --workspace

soak: ## Runs the seeded suites for longer (EVERWHEN_HISTORIES, EVERWHEN_SEED, EVERWHEN_SCALE)
	@scripts/setup test
	cargo build --locked --bin everwhen
	EVERWHEN_SOAK=$${EVERWHEN_SOAK:-10} cargo test --locked --workspace --lib -- fuzz --nocapture
	EVERWHEN_SOAK=$${EVERWHEN_SOAK:-10} cargo test --locked -p everwhen-tests --test all -- --nocapture

bench: ## Measures the figures of docs/performance.md, ratios in one run
	@scripts/setup bench
	cargo build --locked --release -p everwhen-tests --bin everwhen-bench -p everwhen-server --bin everwhen
	@$(CARGO_TARGET_DIR)/release/everwhen-bench

lint: ## Checks form, lints and, where cargo-deny is installed, dependencies
	@scripts/setup build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check; else echo 'lint: cargo-deny is not installed, dependencies were not checked'; fi

fmt: ## Formats the code
	cargo fmt --all

# Every target does its own set-up (scripts/setup), so a fresh clone needs no step before it.

# More arguments: make run ARGS="--port-offset 100", make bench ARGS="config-push --edits 50"
ARGS ?=
CARGO ?= cargo
BUILT = $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help run test bench soak lint

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The unoptimized build: it is there in half the time and starts in well under a second. To see what Chancery can do, there
# is `make bench`. With `--workspace`, features are chosen as for all packages, though only one is built: so it shares with
# `cargo build --workspace --bins` all that it compiles, and with `make test` what is not built on tokio, which has a feature more there.
run: ## Set up, build and run everything on this machine: `chancery dev` with a real Envoy (ARGS="…" adds flags)
	@scripts/setup run
	$(CARGO) build --locked --workspace --bin chancery
	$(BUILT)/debug/chancery dev $(ARGS)

# Three passes over one build: the same packages, and the features that tests ask for, from the start.
# Integration tests run one at a time: several of them start Envoys and count lost requests, and
# what they would then measure on two cores is each other.
test: ## Set up and run every test
	@scripts/setup test
	$(CARGO) build --locked --workspace --bins --tests
	$(CARGO) test --locked --workspace --no-fail-fast --lib --bins
	$(CARGO) test --locked --workspace --no-fail-fast --doc
	$(CARGO) test --locked --workspace --no-fail-fast --test '*' -- --test-threads=1

bench: ## Measure the release build, beside its peers too; results go to bench-results/ (ARGS="…" picks a part)
	@scripts/setup bench
	$(CARGO) build --locked --release --workspace --bins
	$(BUILT)/release/chancery-bench $(if $(ARGS),$(ARGS),all)

# Half an hour, if nothing else is said: make soak ARGS="--minutes 2".
soak: ## Everything at work for half an hour: fails if memory or descriptors grow; results go to bench-results/
	@scripts/setup test
	$(CARGO) build --locked --release --workspace --bins
	$(BUILT)/release/chancery-bench soak $(ARGS)

lint: ## Check format, clippy, docs, shell scripts and licences
	scripts/lint

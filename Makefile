# Each target sets up what is missing, and is quick when there is nothing to do.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ARGS ?=
CARGO := cargo
POLICIES := $(patsubst %/Cargo.toml,%,$(shell grep -ls '^crate-type.*cdylib' policies/*/Cargo.toml examples/*/Cargo.toml tests/hostile/Cargo.toml))
export RUST_BACKTRACE ?= 1

# $(call policies,which oona)
policies = $(1) policy build $(POLICIES) --out target/policies --locked --install >/dev/null \
    $(call step,building the policies,see above)

# $(call step,what fails,what to do)
step = || { printf 'make %s: %s failed; %s\n' "$@" "$(1)" "$(2)" >&2; exit 1; }

.PHONY: help
help: ## Lists the targets.
	@printf 'usage: make TARGET\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@printf '\nmake demo ARGS="--output json" passes options on to the command.\n'

.PHONY: demo
demo: build ## Runs the demo: policies swapped under load, every message accounted for.
	@target/release/oona demo $(ARGS)

.PHONY: test
test: setup ## Sets up what is missing and runs every test.
	@printf 'make test: building the host, about 12 minutes the first time; the tests take about 20 more\n' >&2
	@$(CARGO) build --locked --workspace $(call step,the build,see the compiler above)
	@$(call policies,target/debug/oona)
	@$(CARGO) test --locked --workspace --no-fail-fast $(call step,a test,its name and output are above)

.PHONY: build
build: release ## Builds the host (release) and all policies.
	@$(call policies,target/release/oona)

.PHONY: release
release:
	@[ -e target/release/oona ] || printf 'make build: building the host, about a quarter of an hour the first time\n' >&2
	@$(CARGO) build --locked --release -p oona $(call step,the build,see the compiler above)

.PHONY: policies
policies: ## Builds all policies with the host that is there.
	@$(call policies,$(firstword $(wildcard target/debug/oona target/release/oona) target/debug/oona))

.PHONY: debug
debug:
	@$(CARGO) build --locked --workspace $(call step,the build,see the compiler above)
	@$(call policies,target/debug/oona)

.PHONY: simulation
simulation: debug ## Runs the simulation as every night: 10 000 seeds.
	@OONA_SIM_SEEDS=$${OONA_SIM_SEEDS:-10000} $(CARGO) test --locked --workspace --test simulation -- --nocapture \
	    $(call step,a seed,it is named above with the command that repeats it)

.PHONY: mutants
mutants: debug ## Puts known mistakes into copies of the code: the simulation has to find each.
	@tests/mutants.sh $(ARGS)

.PHONY: bench
bench: build ## Measures this machine, each figure beside raw Redis in the same run.
	@tests/setup.sh redis-server
	@target/release/oona bench $(ARGS)

.PHONY: fuzz
fuzz: ## Searches for input that breaks what reads it, SECONDS_EACH=60 for each target.
	@fuzz/run $(ARGS)

.PHONY: check
check: ## Formatting, lints, documentation, dependencies.
	@$(CARGO) fmt --all --check $(call step,formatting,run cargo fmt)
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings $(call step,clippy,see above)
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --quiet $(call step,rustdoc,see above)
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check --hide-inclusion-graph; \
	    else printf 'make check: cargo-deny is not installed; dependencies were not checked\n' >&2; fi

.PHONY: setup
setup: ## Installs what the tests need: redis-server, Prometheus, clang, Chromium, Python and two packages of it.
	@tests/setup.sh

.PHONY: clean
clean: ## Removes everything that was built.
	@$(CARGO) clean

# `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help run test build bench docs format check

# Arguments of the demonstration, for example: make run ARGUMENTS="--seed 7 --requests 20000"
ARGUMENTS ?=

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start the demonstration: a storm of repeated payments, a kill -9, the ledger (KEEP=1 keeps it up)
	@scripts/install
	swift build -c release --product semel
	swift build -c release --product payments
	swift build -c release --product demonstration
	@exec "$$(swift build -c release --show-bin-path)/demonstration" $(ARGUMENTS)

test: ## Run all tests, with every optional part; needs nothing started
	@scripts/install
	@scripts/test

build: ## Build everything in release mode, with every optional part
	@scripts/install
	swift build -c release --enable-all-traits

bench: ## Run the benchmarks: ratios against the limit, measured in one run
	@scripts/install benchmarks
	swift run -c release --package-path Benchmarks semel-bench

docs: ## Build the documentation of the libraries into .build/docs
	@scripts/install
	@scripts/docs

format: ## Format the sources
	swift format --in-place --recursive --parallel Sources Tests Examples

check: ## Report what is not formatted
	swift format lint --strict --recursive --parallel Sources Tests Examples

# What one does with TokenMesh. A line after two hashes is what `make help` shows.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON ?=
export PYTHON

# What `make run` starts; empty means the default of `tokenmesh up`.
MODEL ?=
DEVICE ?=
PORT ?=
WORKERS ?=
ARGS ?=

INSTALLED := .venv/.installed-for-running
INSTALLED_DEV := .venv/.installed-for-developing
LOCKED := pyproject.toml constraints.txt

SOURCES := services tests scripts benchmarks examples deploy
PRESENT_SOURCES = $(wildcard $(SOURCES))
PROTO_BASELINE := proto/baseline.binpb

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(INSTALLED_DEV) ## Make .venv with all that running, testing and checking need

run: $(INSTALLED) ## Start a whole mesh: make run [MODEL=…] [DEVICE=…] [PORT=…] [WORKERS=…] [ARGS=…]
	@exec $(BIN)/tokenmesh up $(if $(MODEL),--model '$(MODEL)') $(if $(DEVICE),--device '$(DEVICE)') \
		$(if $(PORT),--port '$(PORT)') $(if $(WORKERS),--workers '$(WORKERS)') $(ARGS)

test: $(INSTALLED_DEV) test-tools ## Run every test that a machine without an accelerator can run
	$(BIN)/pytest $(ARGS)

test-tools: $(INSTALLED_DEV) ## Install what tests need that is not in .venv
	@for script in $(sort $(wildcard scripts/install_*.sh)); do $$script || exit 1; done

check: $(INSTALLED_DEV) ## Check format, lint, types, import layers, protos and stubs
	$(BIN)/ruff format --check $(PRESENT_SOURCES)
	$(BIN)/ruff check $(PRESENT_SOURCES)
	$(BIN)/mypy $(wildcard services tests benchmarks scripts)
	$(BIN)/lint-imports --no-cache
	$(MAKE) proto-check

bench: $(INSTALLED_DEV) ## Measure what the mesh itself costs, and keep the results in benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

bench-gateway: $(INSTALLED_DEV) ## Measure what a token costs a gateway's core: [ARGS='--beside CHECKOUT']
	$(BIN)/python -m benchmarks.gateway_core $(ARGS)

bench-engine: $(INSTALLED_DEV) ## Measure the default engine, beside its peers where they are installed
	$(BIN)/python -m benchmarks.engine $(or $(ARGS),all)

bench-gpu: $(INSTALLED_DEV) ## Measure the default engine's steps on a GPU, beside transformers' own
	$(BIN)/python -m benchmarks.gpu $(ARGS)

bench-constraints: $(INSTALLED_DEV) ## Measure outputs held to forms: the libraries for it, and the engine's batch
	$(BIN)/python -m benchmarks.constraints $(ARGS)

bench-peers: $(INSTALLED_DEV) ## Install the engine's peers in .peers, each in an environment of its own
	$(BIN)/python -m benchmarks.peers.environments $(ARGS)

profile-engine: $(INSTALLED_DEV) ## Tell what a step of the default engine spends its time on
	$(BIN)/python -m benchmarks.engine profile $(ARGS)

chaos: $(INSTALLED_DEV) test-tools ## Set a mesh on fire for 15 minutes, and keep the report in tests/chaos/results
	$(BIN)/python -m tests.chaos --write $(ARGS)

format: $(INSTALLED_DEV) ## Format the code and mend what lint can mend
	$(BIN)/ruff format $(PRESENT_SOURCES)
	$(BIN)/ruff check --fix $(PRESENT_SOURCES)

proto: $(INSTALLED_DEV) ## Write gen/ from proto/
	$(BIN)/python scripts/proto.py

openapi: $(INSTALLED_DEV) ## Write docs/openapi.yaml from proto/ and docs/openapi/
	$(BIN)/python -m scripts.openapi

proto-check: $(INSTALLED_DEV) ## Check protos for lint, breaking changes, stale stubs, a stale description
	$(BIN)/python scripts/proto.py --googleapis
	$(BIN)/buf lint
	$(BIN)/buf breaking proto --against $(PROTO_BASELINE)
	$(BIN)/python scripts/proto.py --check
	$(BIN)/python -m scripts.openapi --check

proto-baseline: $(INSTALLED_DEV) ## Make the protos as they are what later ones may not break
	$(BIN)/python scripts/proto.py --googleapis
	$(BIN)/buf build proto --exclude-source-info --output $(PROTO_BASELINE)

lock: $(INSTALLED_DEV) ## Write the versions in .venv to constraints.txt
	$(BIN)/python scripts/lock.py

clean: ## Remove all that the other targets made
	rm -rf .venv .peers .frameworks .run build dist *.egg-info .hypothesis .*_cache
	find . \( -name __pycache__ -o -name node_modules \) -type d -prune -exec rm -rf {} +

$(INSTALLED): $(LOCKED)
	@scripts/setup.sh transformers
	@touch $@

$(INSTALLED_DEV): $(LOCKED)
	@scripts/setup.sh transformers,dev
	@touch $(INSTALLED) $@

.PHONY: help setup run test test-tools check format proto proto-check proto-baseline openapi lock bench bench-gateway bench-constraints bench-engine bench-gpu bench-peers chaos profile-engine clean

.DEFAULT_GOAL := help
.PHONY: help setup compiled run test sdks drill check fix bench docs lock migration

# The system's own interpreter where it will do: distributions build theirs with profile-guided optimisation, version managers mostly don't
# (a fifth of the CPU time of a request). PYTHON=… on the command line names another.
PYTHON ?= $(shell for each in /usr/bin/python3 python3; do \
	$$each -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && exit; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
COOL_DOWN ?= 7 days
BUILD := .build

# As pip and npm are told by many systems: trust the certificates that this machine trusts.
export UV_SYSTEM_CERTS ?= true

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.server: requirements/server.txt requirements/wheel.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/server.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --build-constraints requirements/wheel.txt -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.server
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

# mypyc, apart from the server. Where it can't be had, that is told when it is looked for.
$(BUILD)/.tools: requirements/build.txt | $(VENV)/.server
	@test -x $(BUILD)/bin/python || $(BIN)/python -m venv --without-pip $(BUILD)
	@$(UV) pip install --quiet --python $(BUILD)/bin/python --require-hashes -r requirements/build.txt && touch $@ || true

compiled: $(BUILD)/.tools | $(VENV)/.server ## compile the request path where there is a C compiler; nothing to do where it is compiled already
	@$(BUILD)/bin/python native/build.py $(BIN)/python || echo "the request path could not be compiled: KeyGate runs interpreted, slower per request"

setup: $(VENV)/.server compiled ## create .venv/, install the server into it and compile its request path

run: setup ## start KeyGate with its sandbox vendor on http://127.0.0.1:8000
	@exec $(BIN)/keygate serve --sandbox

check: $(VENV)/.dev ## format, lint, types, import law
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: $(VENV)/.dev ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(VENV)/.dev ## every check and test, 20 to 25 minutes on two cores; what is compiled is tested interpreted too
	@$(MAKE) --no-print-directory --jobs 2 check compiled
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder
	KEYGATE_COMPILED=no $(BIN)/pytest -n 2 --dist loadfile tests/gateway tests/ledger -k "not postgresql"

sdks: $(VENV)/.dev ## install the official SDKs that the tests drive, each into .sdks/
	$(BIN)/python tests/sdks/environments.py

drill: $(VENV)/.dev compiled ## the drills, and the search for secrets, at full length
	KEYGATE_DRILL=full $(BIN)/pytest tests/drills tests/silence

bench: $(VENV)/.dev compiled ## CPU per request against nginx, in one run
	$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/.server ## renew docs/settings.md and docs/openapi.json
	$(BIN)/python -m keygate.processes.documents .

lock: $(VENV)/.server ## renew the lock files; releases of the last days are left out
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --exclude-newer "$(COOL_DOWN)" pyproject.toml -o requirements/server.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --exclude-newer "$(COOL_DOWN)" pyproject.toml --group dev --extra otel -c requirements/server.txt -o requirements/dev.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --exclude-newer "$(COOL_DOWN)" --group pyproject.toml:build -c requirements/dev.txt -o requirements/build.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --exclude-newer "$(COOL_DOWN)" --group pyproject.toml:wheel -c requirements/dev.txt -o requirements/wheel.txt

migration: $(VENV)/.dev ## write the next migration from what the tables say: make migration m="what changes"
	$(BIN)/python migrations/new.py "$(m)"
	$(BIN)/ruff format --quiet migrations

# Every target does its own set-up: .venv from the hash-pinned lock, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PIP_TOOLS := pip-tools==7.6.2
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint soak accept lock docs clean java

help:
	@echo "make demo     the whole pipeline on this machine: hosts, broker, worker (at most 3 minutes)"
	@echo "make test     lint, types, import arrows, tests (about 20 minutes on 2 cores)"
	@echo "make soak     the long tier: chaos, fuzzing, statistics at reduced counts (at most 60 minutes)"
	@echo "make accept   full counts; results in docs/results/"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make docs     write the generated pages of docs/ again"
	@echo "make lock     write requirements.lock from pyproject.toml again"
	@echo "make clean    remove .venv, caches and build outputs"

setup: $(STAMP)

# The checks come first, so that what is missing is said before minutes are spent.
$(STAMP): requirements.lock pyproject.toml
	@.ci/preflight python
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

java:
	@.ci/preflight java

demo: $(STAMP)
	@$(BIN)/enclavescale demo

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# What judges its own cost comes after the rest and alone.
test: java lint
	@$(PYTEST) -n $(WORKERS) --dist loadfile -m "not quiet"
	@$(PYTEST) -m quiet

soak: java $(STAMP)
	@ENCLAVESCALE_TIER=soak $(PYTEST)

accept: java $(STAMP)
	@mkdir -p docs/results
	@ENCLAVESCALE_TIER=accept ENCLAVESCALE_RESULTS=docs/results $(PYTEST)

docs: $(STAMP)
	@$(BIN)/python -m tests.house.codes
	@$(BIN)/python -m tests.house.asyncapi
	@$(BIN)/python -m tests.house.fields
	@$(BIN)/python -m tests.house.configuration
	@$(BIN)/python -m tests.observe.metrics_page
	@$(BIN)/enclavescale topics strimzi > deploy/strimzi/topics.yaml

# Compiled on the oldest Python we support, in an environment of its own; what is pinned stays unless it must move.
lock:
	@.ci/preflight python
	@test -x .venv-lock/bin/pip-compile || { $(PYTHON) -m venv .venv-lock && \
		.venv-lock/bin/pip --disable-pip-version-check --quiet install $(PIP_TOOLS); }
	@.venv-lock/bin/pip-compile --quiet --allow-unsafe --extra=dev --generate-hashes --no-emit-find-links \
		--no-emit-index-url --no-emit-options --no-emit-trusted-host --output-file=requirements.lock \
		--strip-extras pyproject.toml
	@.venv-lock/bin/pip-compile --quiet --allow-unsafe --extra=otel --build-deps-for=wheel --generate-hashes --no-annotate \
		--no-emit-find-links --no-emit-index-url --no-emit-options --no-emit-trusted-host \
		--constraint=requirements.lock --output-file=deploy/requirements.lock --strip-extras pyproject.toml

clean:
	rm -rf .venv .venv-lock build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

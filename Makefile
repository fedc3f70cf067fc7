# `make batch` and `make test` need python3 and make, nothing else: the environment makes itself, pinned by constraints.txt.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MANIFEST ?= manifests/example.yaml
CONFIG ?= configs/default.yaml
ARGS ?=
RUN ?=
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
DOP := $(BIN)/dop
READY := $(VENV)/.ready
# Without compiled bytecode every start would compile pandas anew (2 s), and the program itself (1 s).
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup batch plan collect status report view sandbox test test-long check lint types bench chaos clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "  %-10s %s\n", $$1, $$2 }'
	@echo '  MANIFEST=$(MANIFEST) CONFIG=$(CONFIG) RUN= ARGS= PYTHON= change what they use'

setup: $(READY) ## make .venv, pinned; the other targets do it by themselves

$(READY): pyproject.toml constraints.txt .ci/setup
	@PYTHON='$(PYTHON)' .ci/setup $(VENV)
	@touch $@

batch: $(READY) ## buy the videos of MANIFEST and report them (the default: a rehearsal, free)
	@$(DOP) run '$(MANIFEST)' --config '$(CONFIG)' $(ARGS)

plan: $(READY) ## what MANIFEST would buy, and its price
	@$(DOP) plan '$(MANIFEST)' --config '$(CONFIG)' $(ARGS)

collect: $(READY) ## poll, download and report what is bought already (never buys)
	@$(DOP) collect $(RUN) --config '$(CONFIG)' $(ARGS)

status: $(READY) ## counts and money of the newest run, or of RUN
	@$(DOP) status $(RUN) --config '$(CONFIG)' $(ARGS)

report: $(READY) ## write the report of the newest run again, or of RUN
	@$(DOP) report $(RUN) --config '$(CONFIG)' $(ARGS)

view: $(READY) ## look at the clips of the newest run, or of RUN, in the browser
	@$(DOP) view $(RUN) --config '$(CONFIG)' $(ARGS)

sandbox: $(READY) ## a local gateway to try things on, until Ctrl-C
	@$(DOP) sandbox serve $(ARGS)

test: $(READY) ## the fast tests, two processes for each core
	@$(BIN)/pytest -q -n auto --dist loadgroup $(ARGS)

test-long: $(READY) ## the slow tests, three processes for each core: kill matrix, fuzz, storms
	@$(BIN)/pytest -q -m long --timeout 300 -n auto --dist loadgroup $(ARGS)

check: lint types test test-long ## lint + types + all tests: what CI runs

lint: $(READY) ## style, by ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## types, by mypy, strict
	@$(BIN)/mypy

bench: $(READY) ## measure against other clients (two hours; ARGS=--quick: one round), write docs/internals/benchmarks.md
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m benchmarks all $(ARGS)
	@$(BIN)/python -m benchmarks.sheet

chaos: $(READY) ## the example manifest through 20 storms: charged, booked, lost, doubled
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

clean: ## remove .venv and caches; never outputs/
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist
	@find . -name __pycache__ -type d -not -path './outputs/*' -prune -exec rm -rf {} +

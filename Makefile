# The whole interface of the repository. Each target makes its own virtual environment and installs what it needs;
# a second call finds it there. PYTHON and VENV may be set: make test PYTHON=python3.12 VENV=/tmp/venv
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo test lint types check bench constraints clean help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Synclave needs Python 3.11 or newer; found $$($(PYTHON) --version). Call: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Synclave and what it needs into $(VENV) (once; a few minutes) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing what the tests need into $(VENV) (once) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.demo  ## four hospitals train with differential privacy on this machine and write synthetic patients
	@$(BIN)/synclave demo $(ARGS)

test: $(VENV)/.dev  ## all tests that need neither a GPU nor minutes of patience
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

lint: $(VENV)/.dev  ## ruff and the import contracts between the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.dev  ## mypy --strict
	@$(BIN)/mypy

check: lint types test  ## everything above

bench: $(VENV)/.dev  ## the figures of docs/benchmarks.md, measured anew (about 30 minutes on 2 cores)
	@$(BIN)/python bench/demo.py
	@$(BIN)/python -m bench.private_step
	@$(BIN)/python -m bench.ledger

constraints: $(VENV)/.dev  ## write constraints.txt anew from the installed versions
	@$(BIN)/python deploy/write_constraints.py $(VENV)

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

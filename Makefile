# Every target does all of its own set-up on a fresh clone and is quick when run again.
#   PYTHON=python3.12 make test     another interpreter for a new .venv
#   PIP_CONSTRAINT=FILE make test   versions to install (pip's own variable)
#   PYTEST="-k golden" make test    further arguments to pytest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST ?=
JOBS ?= auto
CONSTRAINTS := $(wildcard $(PIP_CONSTRAINT))

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export DISABLE_MKDOCS_2_WARNING = true
export NO_MKDOCS_2_WARNING = 1

.PHONY: help demo test lint format types docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo | test | lint | format | types | docs | clean"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps stand for "installed as pyproject.toml says"; dev includes all that the demo needs.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/vggt3 demo --output .demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 $(PYTEST)

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf .demo site .mypy_cache .pytest_cache .ruff_cache

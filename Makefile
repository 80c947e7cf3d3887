# make study: the main job, from nothing. make test: all tests. make lint, make docs: what CI checks besides.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: study test lint docs bench ui browser clean

study: $(VENV)/.installed
	$(BIN)/python run_study.py $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the pages as a site, offline; any warning is an error. The variable silences the theme's advertisement of its successor
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/bench_training.py $(ARGS)

ui: $(VENV)/.installed
	$(BIN)/litsexp ui $(ARGS)

# What the tests that look at pages in a browser need beside chromium: faults for a screen reader, by axe-core.
browser: build/npm/node_modules/axe-core/axe.min.js

build/npm/node_modules/axe-core/axe.min.js:
	npm install --no-audit --no-fund --silent --prefix build/npm axe-core@4.14.1

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info

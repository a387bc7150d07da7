# Everything a newcomer or a CI machine needs, from a clean clone, with python3.11+, make and git.
# Installing is recorded in stamp files inside the virtual environment and redone when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
REPORTS ?= reports

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --editable
# A file stays with one worker: what it compiled is used again, and the blocks of a page share their names.
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# One environment, one installer at a time: `make -j` must not run two of them.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format docs bench tables clean

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## install, run the tutorial, write its report
	@mkdir -p $(REPORTS)
	$(BIN)/decigrad tutorial --report $(REPORTS)/tutorial.html
	@echo
	@echo "The report is in $(REPORTS)/tutorial.html: open it in a browser."

test: lint ## lint, types, tests and doctests, without the slow ones
	$(PYTEST) -m "not slow"

test-all: lint ## the same with the slow tests, on programs that are fully optimized
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(PYTEST)

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## let ruff repair layout and imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs ## build the site in docs/_build/html, notebooks executed; any warning fails
	JAX_PLATFORMS=cpu JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "The site is in docs/_build/html/index.html."

bench: $(VENV)/.installed-bench ## time decigrad beside its peers; goes on where it was stopped. DATA=folder of data
	$(BIN)/python -m benchmarks.layers
	$(BIN)/python -m benchmarks.training $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.warm_starts $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.executors --out benchmarks/tables

tables: $(VENV)/.installed-dev ## recompute the tables that are committed in benchmarks/tables
	$(BIN)/python -m benchmarks.default_recipe
	for name in shortest-path knapsack top-k matching ranking tsp; do \
	  $(BIN)/decigrad bench $$name --out benchmarks/tables || exit 1; done
	$(BIN)/decigrad bench summary --out benchmarks/tables

clean: ## remove what was built; the environment too
	rm -rf $(VENV) build dist docs/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# ------------------------------------------------------------------------------------------ environment

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "decigrad needs Python 3.11 or later; $(PYTHON) is `$(PYTHON) --version 2>&1`." \
	       "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment: on Debian, install the package python3-venv." >&2; exit 1; }

# An order-only prerequisite: the interpreter's own date (a link to the system's) says nothing.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing decigrad (once; a minute or two)"
	@$(PIP) .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing decigrad with the tools of its tests (once; a minute or two)"
	@$(PIP) '.[dev,datasets]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	@echo "Installing decigrad with the tools of its documentation and the data of its tutorials (once)"
	@$(PIP) '.[docs,datasets]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	@echo "Installing the peers that the benchmarks time (once; PyTorch is large)"
	@$(PIP) '.[bench,datasets]'
	@# qpth says NumPy below 2, and works with 2: no resolver can install it beside JAX.
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps 'qpth>=0.0.18'
	@touch $@ $(VENV)/.installed

# Two commands, and nothing before them: make demo, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Of tests side by side, each with a Ray of two cores. Files go in their order: the longest tests are not left for the end.
PROCESSES ?= 2

.PHONY: demo test grids lint types check pages docs mutants clean help

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("counterfactory needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/.installed      ## install, retrain on handwritten digits, attribute, judge; prints the leaderboard and the report's path
	$(BIN)/counterfactory run digits --out runs/digits

test: $(VENV)/.installed-test ## install and run all tests
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

grids: $(VENV)/.installed-test ## statistics against simulated truth on their whole grids; minutes, and no part of make test
	$(BIN)/python -m pytest -n $(PROCESSES) -m grid tests/estimators

lint: $(VENV)/.installed-test ## ruff and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-test ## mypy, strict
	$(BIN)/mypy

check: lint types docs test   ## what CI runs

pages: $(VENV)/.installed      ## draw docs/estimators.md, designs.md, tasks.md and recipe.md from the code
	$(BIN)/python docs/pages.py

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: $(VENV)/.installed-docs ## the documentation as a site with a search, in docs/_build/html
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo docs/_build/html/index.html

$(VENV)/.installed-mutants: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	touch $@

mutants: $(VENV)/.installed-mutants ## break the code in small ways, list what no test notices; hours (MUTANTS='orchestrator.designs.*' for a part)
	$(BIN)/mutmut run $(MUTANTS)
	$(BIN)/mutmut results

clean:           ## remove the virtual environment and caches; runs/ is kept
	rm -rf $(VENV) docs/_build mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis

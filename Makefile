# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint clean
.DEFAULT_GOAL := help

help: ## say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 8

.venv/installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing tc_sweeps and what it needs into .venv (a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/installed ## train two small sweeps, print their tables and draw their figures (about a minute on 2 cores)
	$(BIN)/python -m tc_sweeps -m experiment=kinships sweep=demo_kinships data.held_out_fraction=0.7,0.1 model.width=32
	$(BIN)/python -m tc_sweeps -m experiment=figure2 sweep=demo_figure2 data.num_sentences=500,1000 'seed=range(0,3)'
	@$(BIN)/tc-sweeps table demo_figure2
	@$(BIN)/tc-sweeps figure demo_figure2
	@$(BIN)/tc-sweeps table demo_kinships
	@$(BIN)/tc-sweeps figure demo_kinships
	@$(BIN)/tc-sweeps report demo_figure2
	@$(BIN)/tc-sweeps report demo_kinships
	@echo
	@echo "Next:"
	@echo "  $(BIN)/tc-sweeps report demo_kinships --open                            look at it in your browser"
	@echo "  $(BIN)/tc-sweeps report demo_figure2 --open                             and at the other one"
	@echo "  $(BIN)/python -m tc_sweeps seed=1 model.width=64                        one run of your own"
	@echo "  $(BIN)/python -m tc_sweeps -m sweep=mine seed=0,1,2 model.width=16,32   a sweep of your own"
	@echo "  $(BIN)/tc-sweeps figure mine --x model.width --y artifacts/per_ngram    its figure"

test: .venv/installed ## run the tests (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile

lint: .venv/installed ## check style, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove the environment and caches, never outputs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

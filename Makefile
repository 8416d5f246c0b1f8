# make help says what there is. Every target sets itself up from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Used as printed by `make demo Q="your question"`.
Q ?=

.PHONY: help install demo test lint format evaluate clean
.DEFAULT_GOAL := help

help:  ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Make .venv with all that demo and tests need (again: nothing to do).

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed. Try: make PYTHON=python3.11 …")'
	@echo "Installing into $(VENV) (a minute or two) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[demo]' --group dev
	@touch $@

demo: $(INSTALLED)  ## Hybrid search over Python's standard library. Your own question: make demo Q="…"
	@$(BIN)/python examples/demo.py $(if $(Q),"$(Q)")

test: $(INSTALLED)  ## Run the tests.
	@$(BIN)/python -m pytest --quiet

lint: $(INSTALLED)  ## Check style and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(INSTALLED)  ## Mend style.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Folders of BEIR layout: corpus.jsonl, queries.jsonl, qrels.tsv; with a train split, if there is one, weights are tuned.
DATA ?= ../shared/data/scifact ../shared/data/cranfield
evaluate: $(INSTALLED)  ## Retrieval quality and its cost: make evaluate DATA="folder …"
	@$(BIN)/splade evaluate $(DATA) --search both

clean:  ## Remove the environment, caches and the demo's index.
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .mypy_cache

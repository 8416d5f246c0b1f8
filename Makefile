# make help says what there is. Every target sets itself up from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Used as printed by `make demo Q="your question"`.
Q ?=

PEERS := .venv-peers

.PHONY: help install demo test lint format evaluate benchmark benchmark-peers clean
.DEFAULT_GOAL := help

help:  ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

# Folders of BEIR layout: corpus.jsonl, queries.jsonl, qrels.tsv.
DATA ?= ../shared/data/scifact ../shared/data/cranfield
evaluate: $(INSTALLED)  ## Retrieval quality in milvus-lite: make evaluate DATA="folder …"
	@$(BIN)/python benchmarks/evaluate.py $(DATA)

# benchmarks/README.md says what each one answers, and its options. SCIFACT is their folder in BEIR layout.
SCIFACT ?= ../shared/data/scifact
RESULTS ?= .cache/benchmarks/results
BENCHMARK = @mkdir -p $(RESULTS) && $(PEERS)/bin/python -m benchmarks
benchmark: $(PEERS)/.installed  ## Speed, memory and quality, beside peers, on a quiet machine: make benchmark SCIFACT=folder
	$(BENCHMARK).throughput $(SCIFACT) --model tiny --json $(RESULTS)/throughput-tiny.json
	$(BENCHMARK).throughput $(SCIFACT) --model tiny --short --json $(RESULTS)/throughput-tiny-short.json
	$(BENCHMARK).throughput $(SCIFACT) --model base --json $(RESULTS)/throughput-base.json
	$(BENCHMARK).throughput $(SCIFACT) --model base --short --json $(RESULTS)/throughput-base-short.json
	$(BENCHMARK).latency $(SCIFACT) --model tiny --json $(RESULTS)/latency-tiny.json
	$(BENCHMARK).latency $(SCIFACT) --model base --json $(RESULTS)/latency-base.json
	$(BENCHMARK).head $(SCIFACT) --json $(RESULTS)/head.json
	$(BENCHMARK).memory $(SCIFACT) --json $(RESULTS)/memory.json
	$(BENCHMARK).quality $(SCIFACT) --json $(RESULTS)/quality.json

benchmark-peers: $(PEERS)/.installed  ## Make .venv-peers with what the benchmarks compare with.

$(PEERS)/.installed: pyproject.toml constraints.txt benchmarks/requirements-peers.txt
	@echo "Installing into $(PEERS) (some minutes) …"
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable . -r benchmarks/requirements-peers.txt
	@touch $@

clean:  ## Remove the environments, caches and the demo's index.
	rm -rf $(VENV) $(PEERS) .cache .pytest_cache .ruff_cache .mypy_cache

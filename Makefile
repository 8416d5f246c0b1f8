# `make help` lists the targets. Each one sets itself up from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The question of `make demo Q="your question"`.
Q ?=

PEERS := $(VENV)-peers

.PHONY: help install demo test test-files test-programs test-elsewhere test-server test-gpu install-lanes test-lanes lint docs format package evaluate check-installs check-frameworks check-explanations check-copies check-kills check-quality check-weak-sides faults fuzz soak types test-lowest notebooks benchmark benchmark-peers clean
.DEFAULT_GOAL := help

help:  ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Make .venv with everything that the demo and the tests need.

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed. Try: make PYTHON=python3.11 …")'
	@echo "Installing into $(VENV) (a minute or two) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[demo]' --group dev
	@touch $@

demo: $(INSTALLED)  ## Search Python's standard library. To ask your own question: make demo Q="…"
	@$(BIN)/python examples/demo.py $(if $(Q),"$(Q)")

# A lane is an environment, .venv-LANE, with other versions of Milvus's packages. Its constraints file lists only the
# versions that differ from constraints.txt. A lane runs the tests that these differences can affect.
LANES := pymilvus3 lite2
LANE_INSTALLS_pymilvus3 := .[bulk,cli,evaluate,langchain,llama-index,langchain-milvus] langchain-huggingface llama-index-embeddings-huggingface \
	sentence-transformers
LANE_INSTALLS_lite2 := .[langchain,llama-index,langchain-milvus,llama-index-milvus] setuptools
LANE_TESTS_pymilvus3 := tests/milvus tests/test_bulk.py tests/test_dependencies.py tests/test_readme.py tests/test_store_options.py \
	tests/test_filter_law.py tests/test_contract_embeddings.py tests/test_contract_stores.py \
	tests/langchain tests/llama_index splade_integrations/langchain splade_integrations/llama_index \
	splade_integrations/milvus
LANE_TESTS_lite2 := tests/milvus tests/test_dependencies.py \
	tests/test_adapters_smoke.py tests/test_contract_stores.py tests/test_filter_law.py

# The two halves of `make test` run at the same time. A thread that waits for another one must sleep, because a thread that
# spins takes the processor from the other half.
test: export OMP_WAIT_POLICY := PASSIVE
test: $(INSTALLED)  ## Run all tests: on files, on a server, and with other versions of Milvus's packages.
	@$(MAKE) --no-print-directory -j2 test-files test-elsewhere

# The output is shown at the end, so that it does not mix with that of `test-files`. Without -j in MAKEFLAGS, the
# targets run one after the other.
test-elsewhere: $(INSTALLED)
	@echo "At the same time: tests on a server, in the lanes and of programs. Their output comes at the end."
	@MAKEFLAGS="$(filter-out -j% --jobserver%,$(MAKEFLAGS))" OMP_NUM_THREADS=1 $(MAKE) --no-print-directory test-server test-lanes test-programs \
		> $(VENV)/elsewhere.log 2>&1; \
		status=$$?; cat $(VENV)/elsewhere.log; exit $$status

# Tests that run whole programs: examples, notebooks, benchmarks and checks.
PROGRAM_TESTS := tests/test_examples.py tests/test_benchmarks.py tests/test_checks.py tests/test_reliability.py \
	tests/ray/test_kills.py tests/evaluation/test_notebook.py

test-files: $(INSTALLED)  ## Run only the tests on milvus-lite files, which are most tests.
	@$(BIN)/python -m pytest --quiet $(PROGRAM_TESTS:%=--ignore=%)

test-programs: $(INSTALLED)  ## Run only the tests of the examples, notebooks, benchmarks and checks.
	@$(BIN)/python -m pytest --quiet $(PROGRAM_TESTS)

test-server: $(INSTALLED)  ## Run the tests of the stores on the server at MILVUS_URI, or on milvus-lite's server.
	@$(BIN)/python -m tests.support.server

test-gpu: $(INSTALLED)  ## Run the tests that need a GPU, on a GPU. `make test` hides GPUs.
	@$(BIN)/python -m pytest --quiet -m gpu

install-lanes: $(LANES:%=$(VENV)-%/.installed)

test-lanes: $(LANES:%=test-lane-%)  ## Run only the tests with other versions: pymilvus 3, and milvus-lite 2.

test-lane-%: $(VENV)-%/.installed
	@echo "Lane $*: $$(grep == constraints/$*.txt | tr '\n' ' ')"
	@$(VENV)-$*/bin/python -m pytest --quiet $(LANE_TESTS_$*)

$(VENV)-%/.installed: pyproject.toml constraints.txt constraints/%.txt
	@echo "Installing into $(VENV)-$* (a minute or two) …"
	@test -x $(VENV)-$*/bin/python || $(PYTHON) -m venv $(VENV)-$*
	@awk -F == 'NR == FNR { own[tolower($$1)]; print; next } !(tolower($$1) in own)' constraints/$*.txt constraints.txt \
		> $(VENV)-$*/constraints.txt
	@$(VENV)-$*/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(VENV)-$*/bin/python -m pip install --quiet --disable-pip-version-check -c $(VENV)-$*/constraints.txt \
		$(patsubst .%,--editable .%,$(LANE_INSTALLS_$*)) --group lane
	@touch $@

.PRECIOUS: $(VENV)-%/.installed

# The lowest versions that pyproject.toml allows of each package that it names, on an own environment. Not a part of
# `make test`, because torch's oldest wheels bring several GB. UV_OPTIONS are options of uv, such as --override FILE.
LOWEST := $(VENV)-lowest
LOWEST_EXTRAS := langchain,llama-index,cli,serve,remote,peft
LOWEST_TESTS := tests/test_encoder.py tests/test_sparse.py tests/test_records.py tests/test_fusion.py tests/test_dependencies.py \
	tests/test_dynamic_batching.py tests/test_public_names.py tests/encoding tests/engine/test_model.py tests/engine/test_layers.py \
	tests/milvus/test_collection.py tests/test_adapters_smoke.py tests/test_contract_stores.py tests/serving
test-lowest: $(LOWEST)/.installed  ## Run fast tests with the lowest versions that pyproject.toml allows.
	@$(LOWEST)/bin/python -m pytest --quiet $(LOWEST_TESTS)

$(LOWEST)/.installed: pyproject.toml
	@echo "Installing into $(LOWEST) (some minutes) …"
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct $(UV_OPTIONS) \
		--editable '.[$(LOWEST_EXTRAS)]' --group lane
	@touch $@

# pyright checks a program of a user as strictly as it can. It comes from basedpyright, which holds the same code and its
# own node, so that it needs no other network than pip's.
TYPES := $(VENV)-types
types: $(INSTALLED) $(TYPES)/.installed  ## Check with mypy and pyright that a user's program has all types.
	@$(BIN)/mypy tests/support/consumer.py
	@$(TYPES)/bin/basedpyright --pythonpath $(BIN)/python --project tests/support/pyrightconfig.json

$(TYPES)/.installed: pyproject.toml
	@test -x $(TYPES)/bin/python || $(PYTHON) -m venv $(TYPES)
	@$(TYPES)/bin/python -m pip install --quiet --disable-pip-version-check 'basedpyright>=1.30'
	@touch $@

lint: $(INSTALLED)  ## Check style and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(INSTALLED)  ## Build the documentation site into .cache/site. Warnings are errors.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

format: $(INSTALLED)  ## Fix style.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Folders in BEIR layout: corpus.jsonl, queries.jsonl, qrels.tsv. A train split, if there is one, tunes fusion weights.
DATA ?= ../shared/data/scifact ../shared/data/cranfield
evaluate: $(INSTALLED)  ## Measure retrieval quality and its cost: make evaluate DATA="folder …"
	@$(BIN)/splade evaluate $(DATA) --search both --fit

# checks/README.md says what each check requires. A check that fails has exit status 1. Most checks take minutes.
check-installs:  ## Check in clean environments that pip resolves each extra, and that a search works there.
	@$(PYTHON) -m checks.installs

check-frameworks: $(INSTALLED) $(VENV)-pymilvus3/.installed  ## Check SciFact through both frameworks, with pymilvus 2 and 3.
	@$(BIN)/python -m checks.frameworks $(firstword $(DATA))
	@$(VENV)-pymilvus3/bin/python -m checks.frameworks $(firstword $(DATA))

check-explanations: $(INSTALLED)  ## Check that explanations add up to Milvus's scores.
	@$(BIN)/python -m checks.explanations $(firstword $(DATA))

check-copies: $(INSTALLED)  ## Check that splade add-sparse makes right copies, although it is killed and others write.
	@$(BIN)/python -m checks.copies

check-kills: $(INSTALLED)  ## Check that splade index --ray makes the right collection, although its processes are killed.
	@$(BIN)/python -m checks.ray_kills

check-quality: $(INSTALLED)  ## Check SciFact's nDCG@10, and print what each dtype and pruning costs.
	@$(BIN)/python -m checks.quality $(firstword $(DATA))

check-weak-sides: $(INSTALLED)  ## Check what made queries say of weak sides, on variants of the datasets in DATA.
	@$(BIN)/python -m checks.weak_sides $(DATA)

# docs/reliability.md has their figures. OPTIONS are those of the modules, such as OPTIONS="--seconds 30".
faults: $(INSTALLED)  ## Check that faults and kills give clear errors and lose no row. Takes about 10 minutes.
	@$(BIN)/python -W ignore -m checks.faults $(OPTIONS)

fuzz: $(INSTALLED)  ## Check that made-up inputs and damaged model folders end in documented errors. Takes about 10 minutes.
	@$(BIN)/python -W ignore -m checks.fuzz $(OPTIONS)

soak: $(INSTALLED)  ## Check that threads agree, and that memory, handles and threads do not grow. Takes over an hour.
	@$(BIN)/python -W ignore -m checks.soak $(OPTIONS)

notebooks: $(INSTALLED)  ## Run the notebooks in examples/ and store their outputs.
	@$(BIN)/python examples/run_notebooks.py

package: $(VENV)-release/.installed  ## Build the wheel and the sdist into dist/, and check them.
	@rm -rf dist
	@$(VENV)-release/bin/python -m build
	@$(VENV)-release/bin/python -m twine check --strict dist/*

$(VENV)-release/.installed: pyproject.toml
	@test -x $(VENV)-release/bin/python || $(PYTHON) -m venv $(VENV)-release
	@$(VENV)-release/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(VENV)-release/bin/python -m pip install --quiet --disable-pip-version-check --group release
	@touch $@

# benchmarks/README.md says which question each benchmark answers. SCIFACT is a folder in BEIR layout.
SCIFACT ?= ../shared/data/scifact
RESULTS ?= .cache/benchmarks/results
BENCHMARK = @mkdir -p $(RESULTS) && $(PEERS)/bin/python -m benchmarks
benchmark: $(PEERS)/.installed  ## Compare speed and memory with other libraries, on an idle machine: make benchmark SCIFACT=folder
	$(BENCHMARK).throughput $(SCIFACT) --model tiny --json $(RESULTS)/throughput-tiny.json
	$(BENCHMARK).throughput $(SCIFACT) --model tiny --short --json $(RESULTS)/throughput-tiny-short.json
	$(BENCHMARK).throughput $(SCIFACT) --model base --only torch ONNX OpenVINO --json $(RESULTS)/throughput-base.json
	$(BENCHMARK).throughput $(SCIFACT) --model base --short --only torch ONNX OpenVINO --json $(RESULTS)/throughput-base-short.json
	$(BENCHMARK).latency $(SCIFACT) --model tiny --json $(RESULTS)/latency-tiny.json
	$(BENCHMARK).latency $(SCIFACT) --model base --json $(RESULTS)/latency-base.json
	$(BENCHMARK).head $(SCIFACT) --json $(RESULTS)/head.json
	$(BENCHMARK).memory $(SCIFACT) --json $(RESULTS)/memory.json

benchmark-peers: $(PEERS)/.installed  ## Make .venv-peers with the libraries that the benchmarks compare with.

$(PEERS)/.installed: pyproject.toml constraints.txt benchmarks/requirements-peers.txt
	@echo "Installing into $(PEERS) (some minutes) …"
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable . -r benchmarks/requirements-peers.txt
	@touch $@

clean:  ## Remove the environments, caches and the demo's index.
	rm -rf $(VENV) $(VENV)-* .cache .pytest_cache .ruff_cache .mypy_cache

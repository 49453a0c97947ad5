# `make` alone lists the targets. Everything but `install`, `constraints` and `lower-bounds` works without network.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
DEMO ?= meru
EDITABLE ?= editable
CPUS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
JOBS ?= $(shell n=$(CPUS); [ "$$n" -le 8 ] || n=8; echo $$n)
PY := $(VENV)/bin/python
STAMP := $(VENV)/.hypvl-installed
SOURCES := hypvl tests configs scripts benchmarks setup.py

# The checkout comes first whatever is installed; results do not depend on a home folder or the network.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PYTHONUNBUFFERED := 1
PYTEST := HF_HUB_OFFLINE=1 WANDB_MODE=disabled OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal

.PHONY: help
help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo "Variables: DEMO=meru|clip|atmg|hycoclip, VENV=$(VENV), PYTHON=path of a Python >= 3.11, JOBS=$(JOBS) test processes"

$(STAMP): requirements.txt constraints.txt setup.py
	@.ci/make_venv "$(VENV)" "$(EDITABLE)"
	@touch $@

.PHONY: install
install: $(STAMP)  ## make .venv and install everything into it (needs network once)

.PHONY: demo
demo: $(STAMP)  ## train, evaluate and look at a small model on real images (DEMO=meru|clip|atmg|hycoclip)
	HF_HUB_OFFLINE=1 $(PY) scripts/demo.py --model $(DEMO)

.PHONY: test
test: $(STAMP)  ## the default test suite
	$(PYTEST) -m "not slow" tests

.PHONY: test-slow
test-slow: $(STAMP)  ## the slow tests: fresh environments, longer trainings
	$(PYTEST) -m slow -o tmp_path_retention_policy=failed tests

.PHONY: eval-smoke
eval-smoke: $(STAMP)  ## every evaluation suite on miniatures of its data, for a CLIP, a MERU and an ATMG
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m tests.evaluation.smoke

.PHONY: lint
lint: $(STAMP)  ## ruff check, ruff format --check, mypy
	$(PY) -m ruff check $(SOURCES)
	$(PY) -m ruff format --check $(SOURCES)
	$(PY) -m mypy

.PHONY: format
format: $(STAMP)  ## rewrite the sources in the format of the project
	$(PY) -m ruff check --fix --unfixable F401 $(SOURCES)  # recipes import building blocks in order to hand them on
	$(PY) -m ruff format $(SOURCES)

.PHONY: bench
bench: $(STAMP)  ## run the short benchmarks; each prints one JSON line (docs/performance.md names the long ones)
	@$(PY) -m benchmarks.tokenizer
	@$(PY) -m benchmarks.decode
	@$(PY) -m benchmarks.contrastive --batch 4096
	@for scorer in lorentz_distance cosine angle; do \
		$(PY) -m benchmarks.contrastive --batch 8192 --scorer $$scorer; \
	done
	@$(PY) -m benchmarks.contrastive --growth 4096,8192,16384,32768
	@$(PY) -m benchmarks.grad_cache
	@$(PY) -m benchmarks.step
	@$(PY) -m benchmarks.retrieval
	@$(PY) -m benchmarks.probe

.PHONY: constraints
constraints:  ## resolve requirements.txt anew into constraints.txt (needs uv and network)
	uv pip compile requirements.txt --universal --python-version 3.11 --no-header --no-annotate -o constraints.txt
	sed -i.bak '1i\
	# Every dependency, direct and indirect, as resolved together. Written by `make constraints`; used as `pip install -c`.\
	' constraints.txt && rm constraints.txt.bak

.PHONY: lower-bounds
lower-bounds:  ## install the lowest versions that setup.py allows and run the smoke tests (needs uv and network)
	.ci/lower_bounds

.PHONY: clean
clean:  ## remove caches and build outputs (.venv, datasets and output stay)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find hypvl tests configs scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

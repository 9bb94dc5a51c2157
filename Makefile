# One line a target for `make help`. Everything is installed into .venv; PIP_FIND_LINKS and the like are pip's own.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first Python here that is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2

.PHONY: help setup demo test test-slow lint format bench table-2503.10683 table-2406.11473 table-2604.00375 table-2411.06438 clean

help: ## what there is to make
	@grep -E '^[a-z0-9.-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## (.*)/  make \1\t\2/' | expand -t 28

setup: $(STAMP) ## a virtual environment in .venv with diffq and all that its tests need

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "diffq needs Python ≥ 3.11 with its venv module; name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## train two small models on the grammar world, sweep, draw the frontier: ≤ 3 minutes
	$(BIN)/diffq sweep experiment=demo
	@echo
	@echo "Open outputs/sweeps/demo/frontier.png (or .svg); the figures are in frontier.csv and frontier.md beside it."
	@echo "Each point's samples: outputs/points/grammar/*/*/*/samples.jsonl"

test: $(STAMP) ## the test suite: about 10 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n $(WORKERS) --dist worksteal

test-slow: $(STAMP) ## what is slow by nature: the wheel, Hydra's next version: ≤ 15 minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow -n $(WORKERS) --dist worksteal

lint: $(STAMP) ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## our samplers against the textbook's, on this machine: half an hour
	$(BIN)/diffq bench samplers

table-2503.10683: $(STAMP) ## the claims of arXiv 2503.10683 beside what was measured
	@scripts/paper_table.sh 2503.10683 qqp

table-2406.11473: $(STAMP) ## the SEDD paper's tables and the claims of arXiv 2406.11473 beside what was measured
	@$(BIN)/diffq report paper=2406.11473

table-2604.00375: $(STAMP) ## the claims of arXiv 2604.00375 beside what was measured on sudoku and countdown
	@scripts/paper_table.sh 2604.00375 sudoku,countdown reasoning

table-2411.06438: $(STAMP) ## the claims of arXiv 2411.06438 beside what was measured on ROCStories and ParaDetox
	@scripts/paper_table.sh 2411.06438 rocstories,paradetox eags

clean: ## remove the environment and the caches; outputs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './outputs/*' -prune -exec rm -rf {} +

# The whole of Polly's upkeep. `make` alone lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/ready
HTTP_PARSER := $(shell find packaging/http-parser -name '*.py' -o -name '*.toml')
COMPILED := .bench/venv/ready
COMPILED_OF := pyproject.toml packaging/compiling.py $(shell find framework offers storage executors -name '*.py')
# Safe: what is installed comes before the sources in the working directory.
COMPILED_PY := env PYTHONSAFEPATH=1 .bench/venv/bin/python
JOBS ?= 2
# What speaks to servers waits for them a good third of its time: it takes twice as many at once to keep the cores busy.
WAITING_JOBS ?= $(shell echo $$((2 * $(JOBS))))
# Groups begin in the order of tests/conftest.py.
WAITING = -n $(WAITING_JOBS) --dist loadgroup --no-loadscope-reorder
TESTS ?= tests
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Executors start in half the time where compiled modules may be kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup debian debian-demo mesos mesos-all peers check test test-quick test-compiled test-servers test-peers test-cluster demo bench dist clean

help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:[^#]*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with Polly, editable, and all that its development needs

$(READY): pyproject.toml $(HTTP_PARSER)
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "Polly needs Python 3.11, 3.12 or 3.13; PYTHON=/its/path names one." >&2; exit 1; fi; \
	if [ ! -x $(PY) ]; then \
	    echo "Making $(VENV) with $$($$found --version)"; \
	    $$found -m venv $(VENV) || { echo "Debian has the missing part of Python in python3-venv." >&2; rm -rf $(VENV); exit 1; }; \
	fi
	@echo "Installing Polly and its tools into $(VENV), about a minute the first time"
	@$(PY) -m pip install -qq ./packaging/http-parser -e '.[dev,postgresql]'
	@$(PY) -m pip check
	@touch $@

debian: ## install the Debian packages that the tests need (as root; else say which are missing)
	@echo "Looking for the Debian packages that the tests need"
	@packaging/debian.sh test

debian-demo:
	@packaging/debian.sh demo

mesos: setup
	@echo "Making Apache Mesos ready, about 27 MB the first time"
	@$(PY) -m tests.cluster.mesos_cluster --install-only

mesos-all: setup
	@echo "Making Apache Mesos ready in all versions, about 110 MB the first time"
	@$(PY) -m tests.cluster.mesos_cluster --install-only --all

peers: setup debian
	@echo "Making the platforms' peers ready, some hundred MB the first time"
	@$(PY) -m tests.peers

check: setup ## format, lint, types and layers
	@echo "Checking the format" && $(VENV)/bin/ruff format --check -q .
	@echo "Checking the style" && $(VENV)/bin/ruff check -q .
	@echo "Checking the types" && $(VENV)/bin/mypy
	@echo "Checking the layers" && $(VENV)/bin/lint-imports --no-cache --no-logo

test: setup debian mesos-all peers test-quick test-compiled test-servers ## the whole suite, with all that it needs

test-quick: setup ## only what needs no Mesos and no platform's peer
	@echo "Running the unit, property and contract tests, $(JOBS) at a time"
	@$(PY) -m pytest $(TESTS) -m 'not cluster and not peer' -n $(JOBS) --dist worksteal

test-servers: setup ## test-peers and test-cluster at once: none waits for the last of the others
	@echo "Running the tests of the platforms and on a real Mesos, $(WAITING_JOBS) at a time"
	@$(PY) -m pytest $(TESTS) -m 'peer or cluster' $(WAITING)

test-peers: setup ## only what speaks to a platform, real or emulated
	@echo "Running the tests of the platforms, $(WAITING_JOBS) at a time"
	@$(PY) -m pytest $(TESTS) -m peer $(WAITING)

test-cluster: setup ## only what runs on a real Mesos with the local platform
	@echo "Running the tests on a real Mesos, $(WAITING_JOBS) at a time"
	@$(PY) -m pytest $(TESTS) -m 'cluster and not peer' $(WAITING)

demo: debian-demo mesos ## a stateful app on a real Mesos survives its agent (ONCE=1: end by itself)
	@exec $(PY) examples/demo.py $(if $(ONCE),--once)

$(COMPILED): $(READY) $(COMPILED_OF)
	@echo "Building the wheel, with compiled modules"
	@rm -rf .bench/wheel && $(PY) -m build -q --wheel --no-isolation --outdir .bench/wheel . >/dev/null
	@$(PY) -m venv --clear --without-pip .bench/venv
	@$(PY) -m pip --python .bench/venv/bin/python install -qq --no-deps .bench/wheel/*.whl
	@# What else it needs comes from .venv, and tests from here, both after what is installed.
	@for venv in .venv .bench/venv; do $$venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; done | \
	    { read -r ours; read -r its; printf '%s\n' "$$ours" "$(CURDIR)" > "$$its/beside.pth"; }
	@touch $@

test-compiled: $(COMPILED) ## what matching and the cycle do on the wheel's compiled modules: the same as on plain ones
	@echo "Running the tests of offers and of the cycle on compiled modules"
	@$(COMPILED_PY) -m pytest --import-mode=append tests/unit/test_offers* tests/property/test_offers* tests/unit/test_cycle.py
	@# One seed for both: a set's words come in the order of its hashes.
	@export PYTHONHASHSEED=0; plain=$$($(PY) -m tests.compiled plain); compiled=$$($(COMPILED_PY) -m tests.compiled compiled); \
	if [ "$$plain" != "$$compiled" ]; then echo "Plain and compiled modules match differently: $$plain, $$compiled" >&2; exit 1; fi

bench: $(COMPILED) mesos ## measure the wheel as it is built (ONLY=P1: this alone; OUT=FILE: JSON too; FLUSH_MS=1: on a disk so much slower)
	@exec $(COMPILED_PY) -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(OUT),-o $(OUT)) $(if $(FLUSH_MS),--flush-ms $(FLUSH_MS))

dist: setup ## build wheels and source archives, and try them in an empty environment with a third party's adapter
	@rm -rf dist && echo "Building the distributions"
	@$(PY) -m build -q --no-isolation --outdir dist .
	@$(PY) -m build -q --no-isolation --outdir dist packaging/http-parser
	@echo "Installing them into an empty environment, with the example of docs/adapters.md as an adapter of a third party"
	@$(PY) -m tests.wheels dist
	@ls dist

clean: ## remove what make made here (not Mesos' cache folder, ~/.cache/mesos-cluster)
	@rm -rf $(VENV) dist build .demo .bench .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

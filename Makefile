# `make demo` and `make test` need Python 3.11 to 3.13, make, and a package index; nothing else.

PYTHON ?= $(firstword $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p; done))
VENV ?= .venv
# One more than two cores: tests wait for disks, servers and each other.
JOBS ?= 3
BIN := $(VENV)/bin
# Without an NVIDIA GPU, torch's CPU build: the default one brings gigabytes of CUDA packages.
CONSTRAINTS := $(shell test -e /proc/driver/nvidia/version || echo --constraint constraints.txt)
# Twice quiet: errors are printed, and the warnings about a machine's own package indexes are not.
INSTALL ?= $(BIN)/pip install -qq
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MPLBACKEND := Agg
# Else each of the hundreds of processes of the tests compiles anew what it imports.
unexport PYTHONDONTWRITEBYTECODE
# Lint, types and docs run beside the tests; if one of them fails, so does make.
MAKEFLAGS += --jobs=5

.PHONY: demo test lint types unit docs packages clean

demo: $(VENV)/installed
	@$(BIN)/greentrain demo --out demo-out

test: lint types unit docs

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test
	nice $(BIN)/mypy

unit: $(VENV)/installed-test
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

docs: $(VENV)/installed-test
	nice $(BIN)/sphinx-build -W -q -b html docs docs/_build/html

packages:
	nice .ci/packages

clean:
	rm -rf $(VENV) build docs/_build demo-out *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "greentrain needs Python 3.11, 3.12 or 3.13 on the PATH"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python setup.cfg pyproject.toml constraints.txt
	@echo "Installing greentrain and its packages into $(VENV) (once, about two minutes)"
	@$(INSTALL) $(CONSTRAINTS) --editable .
	@touch $@

$(VENV)/installed-test: $(BIN)/python setup.cfg pyproject.toml constraints.txt constraints-test.txt
	@echo "Installing greentrain and what its tests need into $(VENV) (once, about three minutes)"
	@$(INSTALL) $(CONSTRAINTS) --constraint constraints-test.txt --editable ".[test,docs]"
	@touch $(VENV)/installed $@

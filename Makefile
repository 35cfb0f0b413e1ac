# Everything starts from Python 3.11 or newer, make and git. `make` alone prints the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# how many test files run at a time: three Ray clusters at once on two cores wait for each other more than they save
TEST_WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup browser demo test check bench clean
.DEFAULT_GOAL := help

help: ## print the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.ready ## make the virtual environment and install Rapt into it

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Rapt needs Python 3.11 or newer; $(PYTHON) is older. Install it, or run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

browser: ## install Chromium for the tests of the page, as root on Debian; elsewhere say how
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && \
			apt-get -qq install -y --no-install-recommends chromium >/dev/null; } || \
		echo "no Chromium: the tests of the page will be skipped (Debian: apt install chromium)"

demo: setup ## run everything on simulated clips: about five minutes on two cores
	$(BIN)/rapt demo

test: setup browser ## run the tests, two files at a time (TEST_WORKERS=2)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

check: setup ## lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## run the benchmarks; each prints a ratio against a named peer
	for name in $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## remove the virtual environment and caches, keep .rapt
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

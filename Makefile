# Set-up, run and tests in one command each, on a machine with Python 3.11 or later and make.
#   make run PYTHON=python3.13    another interpreter
#   make run ARGS="--port 8081"   arguments for `accessguard dev`

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
RUNTIME := $(VENV)/.runtime-$(VERSION)
DEVELOPMENT := $(VENV)/.development-$(VERSION)
LOCK := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links

.PHONY: run setup test fuzz chaos check bench lint audit format words pictures lock clean
.DEFAULT_GOAL := run

run: $(RUNTIME)
	@exec $(BIN)/python -m accessguard dev $(ARGS)

setup: $(DEVELOPMENT)

# Long files first (tests/order.py). The tests start a hundred interpreters, which compile no module twice.
test: lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: $(DEVELOPMENT)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -m hypothesis -o timeout=0 $(ARGS)

chaos: $(DEVELOPMENT)
	@exec $(BIN)/python -m tests.chaos $(ARGS)

lint: $(DEVELOPMENT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

# Known holes in what is pinned; said as skipped where their list cannot be reached.
audit: $(DEVELOPMENT)
	@$(BIN)/python -m tests.audit

format: $(DEVELOPMENT)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The texts of the code into the catalogues, where translations are then to be written.
words: $(DEVELOPMENT)
	@exec $(BIN)/python -m tests.words.gather

# The pictures of the README, anew.
pictures: $(DEVELOPMENT)
	ACCESSGUARD_PICTURES=$(CURDIR)/docs/images $(BIN)/python -m pytest tests/browser/test_pictures.py -n 0

bench: $(DEVELOPMENT)
	@exec $(BIN)/python -m benchmarks $(ARGS)

lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check --quiet install --upgrade uv
	$(LOCK) --upgrade requirements.in --output-file requirements.txt
	$(LOCK) --upgrade requirements-dev.in --output-file requirements-dev.txt

clean:
	rm -rf $(VENV) .venv-lock build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The stamps: made last, so that an interrupted installation is taken up again.
$(RUNTIME): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "AccessGuard needs Python 3.11 or later; say which one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python$(VERSION) -m pip --version >/dev/null 2>&1 || rm -rf $(VENV)
	@test -d $(VENV) || { echo "Making $(VENV) with Python $(VERSION) ..." && $(PYTHON) -m venv $(VENV); } \
		|| { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Installing what the service needs ..."
	@$(PIP) install --require-hashes -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEVELOPMENT): $(RUNTIME) requirements-dev.txt
	@echo "Installing what the tests need ..."
	@$(PIP) install --require-hashes -r requirements.txt -r requirements-dev.txt
	@touch $@

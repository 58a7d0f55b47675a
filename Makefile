# From a fresh checkout to a running demo, or to passed tests. Needs make and Python 3.10 to 3.13.
#
# Everything goes into a virtual environment of the checkout's own (Debian forbids pip outside one),
# in the versions of constraints.txt. Set up once; again only when pyproject.toml or constraints.txt
# has changed.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# setuptools is named and installed first, and the build not isolated: it too comes in a pinned version.
# 21.3 is the first pip that installs a checkout in place from its pyproject.toml. Not compiled ahead: that
# takes half of the time, and Python does it for what it imports.
INSTALL = $(PIP) install --no-compile --constraint constraints.txt 'pip>=21.3' setuptools && \
	$(PIP) install --no-compile --constraint constraints.txt --no-build-isolation --editable

# Each command and worker imports mlflow: 3.5 s where the environment forbids cached bytecode, 1.1 s with it.
unexport PYTHONDONTWRITEBYTECODE

# A file's tests stay together, and the longest files come first.
SPREAD := -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test coverage setup setup-dev constraints clean

help:
	@echo 'make demo         set up, then run a table of texts through everything on this machine'
	@echo 'make test         set up, then check and test: what CI runs'
	@echo 'make coverage     the tests alone, with the lines that they do not reach'
	@echo 'make setup        set up alone: $(BIN)/producer and $(BIN)/celery'
	@echo 'make setup-dev    the same with what the checks and tests need'
	@echo 'make constraints  solve constraints.txt anew for all Pythons (UPGRADE=1: to the newest versions)'
	@echo 'make clean        remove the virtual environment and caches; jobs and runs stay'
	@echo
	@echo 'PYTHON=python3.12 names another Python, VENV=folder another virtual environment.'

demo: $(VENV)/.set-up
	@$(BIN)/producer demo

test: $(VENV)/.set-up-dev
	@$(BIN)/python --version
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m 'e2e or ladder'
	$(BIN)/pytest $(SPREAD)

coverage: $(VENV)/.set-up-dev
	$(BIN)/pytest $(SPREAD) --cov --cov-report=term-missing:skip-covered

setup: $(VENV)/.set-up
	@echo 'ready: $(BIN)/producer --help'

setup-dev: $(VENV)/.set-up-dev
	@echo 'ready: $(BIN)/pytest'

$(VENV)/.set-up: $(BIN)/python pyproject.toml constraints.txt
	@echo 'setting up $(VENV): a few minutes the first time' >&2
	@$(INSTALL) .
	@touch $@

$(VENV)/.set-up-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo 'setting up $(VENV) with what the tests need: a few minutes the first time' >&2
	@$(INSTALL) '.[dev]'
	@touch $(VENV)/.set-up $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo 'error: there is no $(PYTHON): install Python 3.10 to 3.13, or name one: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), too old: name a Python 3.10 to 3.13: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) cannot make virtual environments: on Debian and Ubuntu, apt install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
		exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)

# Pins move only as far as pyproject.toml asks; UPGRADE=1 moves all of them. Then: make test with every Python.
constraints:
	@$(PYTHON) -m venv build/uv
	@build/uv/bin/pip --disable-pip-version-check --quiet install uv
	@echo setuptools | build/uv/bin/uv pip compile --quiet --universal --python-version 3.10 --all-extras \
		--no-annotate --custom-compile-command 'make constraints' \
		$(if $(UPGRADE),--upgrade) --output-file constraints.txt pyproject.toml -

clean:
	rm -rf $(VENV) build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find flavor worker producer tests -name __pycache__ -prune -exec rm -rf {} +

# `make demo` and `make test` do all set-up themselves, in .venv.

PYTHON ?= python3
BIN := .venv/bin
# Two processes; who has nothing left takes tests from the other.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test lint types check docs clean

demo: .venv/ready
	$(BIN)/discreet demo

test: .venv/dev
	$(PYTEST)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	test ! -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

types: .venv/dev
	$(BIN)/pyright

# Everything: also what is slow or needs real data.
check: lint types test
	$(PYTEST) -m "(slow or real_data) and not gpu"

docs: .venv/dev
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "discreet needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev: .venv/ready requirements-dev.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements-dev.lock
	touch $@

clean:
	rm -rf .venv build runs src/*.egg-info

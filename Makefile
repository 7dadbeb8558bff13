# The commands people type. `make demo` and `make test` are all a newcomer needs; each installs what it uses.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo ui test test-all lint bench lock clean

help:
	@echo "make demo   install, start the embedded PostgreSQL, bill the demo municipality, show the result"
	@echo "make ui     the Dagster UI on the same data, http://127.0.0.1:3000"
	@echo "make test   install and run the tests (under 10 minutes on 2 cores); make test-all adds the long ones"
	@echo "make lint   ruff, mypy --strict, import-linter"
	@echo "make bench  the headline figures beside their peers, as JSON"
	@echo "make lock   refresh requirements.lock from pyproject.toml"

install: $(STAMP)

# uv installs in seconds what takes pip a minute; where it cannot (a pip.conf mirror it does not read), pip does the same lock.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e . 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

demo: install
	@$(BIN)/meter-pipeline demo

ui: install
	@$(BIN)/meter-pipeline ui

test: install
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: install
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: install
	@for name in day load probe ledger baselines billing vee; do $(BIN)/meter-pipeline bench $$name --json || exit 1; done

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra test --extra lint --extra oracles pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .meter_pipeline build *.egg-info

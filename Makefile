# The commands people type. `make demo` and `make test` are all a newcomer needs; each installs what it uses.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where it is set, each process compiles all it imports again: 2 s of processor for every start of Dagster.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install lives histories demo ui test test-fast test-all check lint pages docs bench lock clean faults simulate fuzz sbom audit

help:
	@echo "make demo   install, start the embedded PostgreSQL, bill the demo municipality, show the result"
	@echo "make ui     the Dagster UI on the same data, http://127.0.0.1:3000"
	@echo "make test   install and run the tests (10 minutes on 2 cores); make test-all adds the long ones"
	@echo "make check  format, lint, types, import rules, dg check defs; make test-fast: the tests that start no server"
	@echo "make pages  writes the pages of docs/ that are made from code"
	@echo "make docs   the docs as a site in build/site, links checked, without a network"
	@echo "make bench  the headline figures beside their peers, as JSON"
	@echo "make faults   every kind of fault many times on a real server (half an hour to an hour), and the table of docs/reliability.md"
	@echo "make lives    28,000 histories of accounts and 500 long random ones against a model of what each owes (20 minutes on 2 cores)"
	@echo "make histories 28,512 orders of two corrections, days, an issue and a seal (20 minutes)"
	@echo "make simulate 100,000 simulated histories; make fuzz: two hours over the parsers (needs pip install atheris)"
	@echo "make sbom   CycloneDX bill of materials of requirements.lock; make audit asks the vulnerability database (network)"
	@echo "make lock   refresh requirements.lock from pyproject.toml"

install: $(STAMP)

# uv installs in seconds what takes pip a minute; where it cannot (a pip.conf mirror it does not read), pip does the same lock.
# uv leaves modules to be compiled by whoever imports them first: that is done here, for people who forbid it later.
# The lock is whole, so nothing is resolved (--no-deps): the pip that Python 3.11 brings refuses gql[requests] of it otherwise.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e . 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@$(BIN)/python -c "import dagster._cli, dagster._daemon, dagster_webserver.cli, meter_pipeline.definitions"
	@$(BIN)/python -m compileall -q meter_pipeline
	@touch $(STAMP)

demo: install
	@$(BIN)/meter-pipeline demo

ui: install
	@$(BIN)/meter-pipeline ui

# make test ARGS=--durations=20 lists the twenty slowest. Frames of a few rows gain nothing by Polars' second thread, and
# waking it for each was a tenth of the processor time of a test of small days.
test: install
	@POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-all: install
	@$(BIN)/python -m pytest -n 2 --dist loadfile

# The tests that start no server and ask no other calculator: pure functions, formats, rates.
test-fast: install
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not server and not oracle" $(ARGS)

check lint: install
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@mkdir -p build/dg && printf 'telemetry:\n  enabled: false\n' > build/dg/dagster.yaml
	@DAGSTER_HOME=$(CURDIR)/build/dg VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg check defs > build/dg/check.txt 2>&1 \
	  || { cat build/dg/check.txt; exit 1; }

pages: install
	@$(BIN)/python tools/make_pages.py

docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

bench: install
	@for name in day load probe ledger baselines billing vee; do $(BIN)/meter-pipeline bench $$name --json || exit 1; done

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra test --extra lint --extra docs --extra oracles pyproject.toml -o requirements.lock

faults: install
	@mkdir -p build
	@$(BIN)/python -m meter_pipeline_tests.faults.run --json build/faults.json
	@$(BIN)/python -m meter_pipeline_tests.faults.run --json build/faults.json --table docs/reliability.md

lives: install
	@mkdir -p build
	@POLARS_MAX_THREADS=1 $(BIN)/python -m meter_pipeline_tests.lives.run --json build/lives.json

histories: install
	@mkdir -p build
	@POLARS_MAX_THREADS=1 $(BIN)/python -m meter_pipeline_tests.corrections.run --json build/histories.json

simulate: install
	@mkdir -p build
	@POLARS_MAX_THREADS=1 $(BIN)/python -m meter_pipeline_tests.simulation.run --seeds 100000 --json build/simulation.json

fuzz: install
	@$(BIN)/python -m meter_pipeline_tests.fuzz.campaign --work build/fuzz --seconds 7200
	@$(BIN)/python -m meter_pipeline_tests.fuzz.campaign --work build/fuzz --report

# Neither tool is a dependency: each lives in a folder of its own under build/.
sbom: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/sbom-tool cyclonedx-bom==7.5.0 2>/dev/null
	@PYTHONPATH=build/sbom-tool $(BIN)/python -m cyclonedx_py requirements requirements.lock --output-reproducible -o build/sbom.json
	@echo "build/sbom.json"

audit: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/audit-tool pip-audit==2.10.1 2>/dev/null
	@PYTHONPATH=build/audit-tool $(BIN)/python -m pip_audit -r requirements.lock --require-hashes --disable-pip

clean:
	rm -rf $(VENV) .meter_pipeline build *.egg-info

# Everything goes into .venv; nothing else is needed than Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANIFEST := dbt_project/target/manifest.json
DBT_SOURCES := $(shell find dbt_project -name target -prune -o -name logs -prune -o -type f -print 2>/dev/null)

export DO_NOT_TRACK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run ui notebook test test-slurm test-rabbitmq test-compose check check-duckdb2 format docs bench bench-warehouse lock clean

help:
	@echo "make run    set up, then one pass of the whole pipeline on the embedded default"
	@echo "make ui     the Dagster UI, its daemon and the local store"
	@echo "make notebook  pictures of what gold holds, in the browser (marimo)"
	@echo "make test   all tests, real PostgreSQL included"
	@echo "make test-slurm  jobs on a real Slurm of this host; Debian, as root; installs slurm-wlm and munge"
	@echo "make test-compose  what compose.yaml starts, as processes over a real PostgreSQL"
	@echo "make test-rabbitmq  events and messages by a real RabbitMQ; Debian, as root; installs rabbitmq-server"
	@echo "make check  lint, format, types, SQL lint"
	@echo "make docs   the dbt docs as one HTML file"
	@echo "make check-duckdb2  the warehouse built and tested with the newest DuckDB 2"
	@echo "make bench  the benchmarks; make bench-warehouse: the warehouse at three sizes, an hour and 25 GB"

# Compiled bytecode: each new process would otherwise compile everything again.
$(VENV)/.run: pyproject.toml requirements.lock
	test -x $(BIN)/uv || ($(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[frames]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'
	touch $@

$(MANIFEST): $(VENV)/.run $(DBT_SOURCES)
	$(BIN)/dbt --quiet parse --project-dir dbt_project --profiles-dir dbt_project --log-path data/dbt/logs
	touch $@

setup: $(VENV)/.run $(MANIFEST)

run: setup
	$(BIN)/l2 run --play-scientist

ui: setup
	$(BIN)/l2 ui

notebook: setup
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[notebook]'
	$(BIN)/l2 notebook

test: $(VENV)/.dev $(MANIFEST)
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

# Nothing of it stays: daemons, files and jobs end with the tests; the two packages remain installed.
test-slurm: $(VENV)/.dev $(MANIFEST)
	(command -v slurmctld && command -v munged) > /dev/null || (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge)
	$(BIN)/python -m pytest tests/slurm/slurm_jobs.py

# Long waiting for processes to come up, so it is not among the tests.
test-compose: $(VENV)/.dev $(MANIFEST)
	$(BIN)/python -m pytest tests/compose/compose_jobs.py

# The broker is the tests' own, on a free port and in a temporary folder; the package remains installed.
test-rabbitmq: $(VENV)/.dev
	test -x /usr/lib/rabbitmq/bin/rabbitmq-server || (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends rabbitmq-server)
	$(BIN)/python -m pytest tests/publishing/rabbit_jobs.py

check: $(VENV)/.dev $(MANIFEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd dbt_project && ../$(BIN)/sqlfluff lint --disable-progress-bar models tests gold_macros.sql

# DuckDB 2 alone lies in a folder that comes before the environment; everything else is as locked.
$(VENV)-duckdb2/.run: Makefile $(VENV)/.run
	rm -rf $(VENV)-duckdb2
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --target $(VENV)-duckdb2 'duckdb>=2,<3'
	touch $@

# A build of everything with all of dbt's tests, the states, the history that grows, the rules on odd and on real
# records. All tests of the warehouse: make check-duckdb2 DUCKDB2_TESTS=tests/warehouse
DUCKDB2_TESTS ?= tests/warehouse/test_project_rules.py tests/warehouse/test_states.py tests/warehouse/test_growing.py \
	tests/warehouse/test_rules_agree.py tests/warehouse/test_real_records.py tests/lake/test_compaction.py
check-duckdb2: $(VENV)-duckdb2/.run $(VENV)/.dev $(MANIFEST)
	PYTHONPATH=$(CURDIR)/$(VENV)-duckdb2 $(BIN)/python -c 'import duckdb; assert duckdb.__version__.startswith("2."), duckdb.__version__'
	PYTHONPATH=$(CURDIR)/$(VENV)-duckdb2 $(BIN)/python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder $(DUCKDB2_TESTS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/l2 docs

# A limit that is not held fails its script; the others run all the same.
bench: $(VENV)/.dev $(MANIFEST)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[bench]'
	@failed=; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; done; \
	[ -z "$$failed" ] || { echo "limits not held in:$$failed"; exit 1; }

bench-warehouse: $(VENV)/.dev $(MANIFEST)
	$(BIN)/python benchmarks/warehouse.py --datasets 10000 100000 1000000 --transitions 100000 1000000 20000000

# Names and versions only: where packages come from is each installation's own affair.
# Resolved for the oldest Python that is promised; what is locked already stays as it is.
lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --python-version 3.11.0 --extra dev --no-header --no-annotate --no-emit-index-url --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) $(VENV)-duckdb2 dbt_project/target dbt_project/logs build *.egg-info

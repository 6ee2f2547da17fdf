# Everything goes into .venv; nothing else is needed than Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANIFEST := dbt_project/target/manifest.json
DBT_SOURCES := $(shell find dbt_project -name target -prune -o -name logs -prune -o -type f -print 2>/dev/null)

export DO_NOT_TRACK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run ui test test-slurm check format docs bench lock clean

help:
	@echo "make run    set up, then one pass of the whole pipeline on the embedded default"
	@echo "make ui     the Dagster UI, its daemon and the local store"
	@echo "make test   all tests, real PostgreSQL included"
	@echo "make test-slurm  jobs on a real Slurm of this host; Debian, as root; installs slurm-wlm and munge"
	@echo "make check  lint, format, types, SQL lint"
	@echo "make docs   the dbt docs as one HTML file"
	@echo "make bench  the benchmarks"

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

test: $(VENV)/.dev $(MANIFEST)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# Nothing of it stays: daemons, files and jobs end with the tests; the two packages remain installed.
test-slurm: $(VENV)/.dev
	(command -v slurmctld && command -v munged) > /dev/null || (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge)
	$(BIN)/python -m pytest tests/slurm/slurm_jobs.py

check: $(VENV)/.dev $(MANIFEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd dbt_project && ../$(BIN)/sqlfluff lint --disable-progress-bar models tests gold_macros.sql

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/l2 docs

bench: $(VENV)/.dev $(MANIFEST)
	@for script in benchmarks/*.py; do [ -e "$$script" ] || continue; echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Names and versions only: where packages come from is each installation's own affair.
lock: $(VENV)/.dev
	$(BIN)/uv pip freeze --quiet --python $(BIN)/python --exclude-editable | grep '==' | grep -v -i -E '^(uv|pip)==' | sort -f > requirements.lock

clean:
	rm -rf $(VENV) dbt_project/target dbt_project/logs build *.egg-info

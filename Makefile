# Plain venv + pip; the only tools needed are Python 3.11+, make and a package index.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
OUT ?= runs/miniature
# Versions that are installed; empty takes the newest.
CONSTRAINTS ?= constraints.txt
# Processes that share out the unit tests; each takes up to 2 GB.
WORKERS ?= 2
# Beside the tests that start a Ray, one where nothing else was asked for.
BESIDE_RAY = $(if $(filter file,$(origin WORKERS)),1,$(WORKERS))
# What tests print in one piece; make 3 mixes the lines.
TOGETHER = $(if $(filter 3.%,$(MAKE_VERSION)),,--output-sync=target)
# Inputs of make fuzz, faults of make chaos.
N ?= 1000
# Where tests that start a Ray, or another server, are: to collect all others too takes half a minute.
RAY_TESTS := tests/cluster tests/jobs tests/unit/tracking tests/chaos
# Tests share few cores: one thread each keeps them from fighting.
# Where this machine keeps no compiled modules, each of the hundreds of processes of the tests would compile them anew.
TEST_ENV := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true

.PHONY: help install demo test check static types test-quick test-unit test-ray longest test-slow test-lowest test-newest fuzz chaos audit docs notebooks ui format wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

install: $(VENV)/.installed  ## make the environment

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e ".[dev]"
	@touch $@

demo: install  ## run the whole service on the miniature world
	$(VENV)/bin/qaclims run miniature small-crops --out $(OUT)

test: static  ## all tests that CI runs, those with and those without a Ray side by side
	$(MAKE) --no-print-directory $(TOGETHER) -j 2 test-ray test-unit WORKERS=$(BESIDE_RAY)

check: static test-quick  ## format, lint, import contracts, types, the unit tests that are quick: before every commit

static: install types  ## format, lint, import contracts, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports

types: install
	$(VENV)/bin/pyrefly check --python-interpreter-path $(PY) --summary=none

test-quick: install  ## unit tests that are not in tests/longest.txt
	$(TEST_ENV) $(PY) -m pytest -q -m "not ray and not slow" -n $(WORKERS) --dist worksteal --quick

test-unit: install  ## all tests that start no Ray
	$(TEST_ENV) $(PY) -m pytest -q -m "not ray and not slow" -n $(WORKERS) --dist worksteal --durations 15

longest: install  ## run all tests that start no Ray, and list those that are not quick in tests/longest.txt
	@mkdir -p build && rm -f build/cpu_seconds.tsv
	$(TEST_ENV) $(PY) -m pytest -q -m "not ray and not slow" -n $(WORKERS) --dist worksteal --cpu-seconds build/cpu_seconds.tsv
	$(PY) -m tests.longest build/cpu_seconds.tsv

test-ray: install  ## tests that start a local Ray
	$(TEST_ENV) $(PY) -m pytest -q -m "ray and not slow" --durations 15 $(RAY_TESTS)

test-slow: install  ## full-size models and whole pipelines
	$(TEST_ENV) $(PY) -m pytest -q -s -m slow

test-lowest:  ## unit tests with the lowest version of each dependency that pyproject.toml allows, in .venv-lowest
	$(MAKE) test-unit VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

test-newest:  ## unit tests with the newest version of each dependency, in .venv-newest
	$(MAKE) test-unit VENV=.venv-newest CONSTRAINTS=

fuzz: install  ## read N changed files of every kind that people or runs hand over
	$(TEST_ENV) $(PY) -m tests.fuzz --inputs $(N)

chaos: install  ## do harm to small runs N times, and see that nothing is lost and nothing is silent
	$(TEST_ENV) $(PY) -m tests.chaos --faults $(N)

audit: install  ## ask PyPI's vulnerability service about the pinned versions; cannot run offline
	$(VENV)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off --strict

docs: install  ## build these pages as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict
	@echo build/site/index.html

notebooks: install  ## run the notebooks, with outputs in build/notebooks
	$(TEST_ENV) $(PY) notebooks/execute.py --out build/notebooks

ui: install  ## the runs in the browser, by MLflow on 127.0.0.1
	$(VENV)/bin/qaclims ui $(dir $(OUT))

format: install  ## format and fix
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

wheel: install  ## build the wheel
	$(PY) -m build --wheel

clean:  ## remove what was built, not the runs
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .import_linter_cache .hypothesis

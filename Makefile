# make repro · the whole job, from raw corpora to reports/index.html
# make test  · lint and tests
# make nightly · the slow tests too;  make coverage · what the tests reach;  make wheel · the library d2v_core alone
# make bench · ratios against stated alternatives, after make repro;  make format · what ruff can correct by itself
# make flow · the pipeline as a Prefect flow;  make ui · Prefect: pages, pools, workers
# make clean · removes data, models, reports, state and the cache of DVC
# All but clean first create .venv and install the tested versions; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONPATH := $(CURDIR)
# in the order of tests/conftest.py
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: repro test nightly coverage lint format bench flow ui wheel clean

repro: $(INSTALLED)
	@rm -f state/timings.jsonl
	@dvc repro
	@python -m stages.timings

test: lint
	@$(PYTEST)

nightly: lint
	@D2V_NIGHTLY=1 $(PYTEST)

coverage: $(INSTALLED)
	@$(PYTEST) --cov --cov-report term:skip-covered

lint: $(INSTALLED)
	@ruff check .
	@ruff format --check .
	@mypy

format: $(INSTALLED)
	@ruff check --fix .
	@ruff format .

bench: $(INSTALLED)
	@python -m benchmarks.steps
	@OMP_NUM_THREADS=1 python -m benchmarks.versions digits
	@OMP_NUM_THREADS=1 python -m benchmarks.preparation
	@OMP_NUM_THREADS=1 python -m benchmarks.reading
	@python -m benchmarks.flows 1

flow: $(INSTALLED)
	@python -m flows.reproduce

ui: $(INSTALLED)
	@exec python -m flows.ui $(UI)

wheel: $(INSTALLED)
	@python -m build --no-isolation deploy/library --outdir dist

clean:
	rm -rf data models reports state .dvc/tmp .dvc/cache

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; run make PYTHON=python3.11.")'
	@echo "Installing the tested versions into $(VENV); the first time this takes some minutes."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

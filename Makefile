# One word each; every target also works as the first command in a fresh clone.
# Settings (make demo PYTHON=...): PYTHON and TORCH_INDEX, see deploy/install.sh;
# ARGS goes to pytest (make test ARGS="-k ledger"), JOBS is its number of processes.

BIN := .venv/bin
JOBS ?= 2
# tests/conftest.py says in which order files are handed out.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile \
	--no-loadscope-reorder

.PHONY: help demo test test-all check bench clean

help:
	@echo "make demo      1 server and 3 banks on this machine train one model, privately"
	@echo "make test      the tests that take seconds (at most 10 minutes in all)"
	@echo "make test-all  every test in its long form: kills, fuzz (cut at 45 minutes)"
	@echo "make check     format, lint, types, floors between rooms, generated code"
	@echo "make bench     every benchmark, as one table"
	@echo "make clean     remove caches and build output; .venv and runs/ stay"

demo: .venv/.installed
	$(BIN)/guilder demo

test: .venv/.installed-dev
	$(PYTEST) -m "not slow" $(ARGS)

# Its kills and bad lines wait for half of their time.
test-all: JOBS = 3
test-all: .venv/.installed-dev
	$(PYTEST) -m "not brief" --session-timeout=2700 $(ARGS)

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python deploy/protos.py --check

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/all.py $(ARGS)

clean:
	rm -rf build dist guilder-demo .mypy_cache .ruff_cache .pytest_cache
	rm -rf .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -print | xargs rm -rf

# The stamps are written last: an interrupted install is taken up again.
INSTALLED_FROM := pyproject.toml constraints.txt deploy/install.sh

.venv/.installed: $(INSTALLED_FROM)
	@deploy/install.sh
	@touch $@

.venv/.installed-dev: $(INSTALLED_FROM)
	@deploy/install.sh dev
	@touch .venv/.installed $@

# make setup  the .venv that the workflow needs; other targets call it, and those of tests add what tests need
# make demo   build every figure and table of the tiny preset, on the CPU
# make docs   the documentation as a site, build/site/index.html; a broken link or a stale output is an error
# make lint   formatting, mistakes that ruff and Snakemake find, spelling; make format mends what can be mended
# make test   the checks before a commit, in minutes: lint, units, golden values, planning, one small workflow
# make test-all   all checks, including Slurm, killed work, several processes, a browser, notebooks, released shapes
# make envs   write the conda environments of the rules, from the imports of their code and the bounds in pyproject.toml
# make bench  measure speed on this machine, compared with other libraries
# make gpu-evidence  check and measure on an NVIDIA GPU what is not yet in results/gpu/: evidence.md, a JSON for each part
# make chaos  kill the tiny preset KILLS=20 times, and check that its results equal those of an undisturbed run
# make mutants  count how many of 300 small mistakes in the code the tests catch: build/mutants/report.md
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TESTS_READY := .venv/ready-tests
export WANDB_MODE ?= offline
KILLS ?= 20
CONSTRAINTS ?= constraints.txt
# uv installs the same versions in a fraction of the time. `make setup UV=` uses pip, e.g. for its configured index.
# Bytecode is left to Python's first import, except where Python may not write it and would compile in every process.
UV ?= $(shell command -v uv 2>/dev/null)
WITH_UV = $(UV) pip install --python $(BIN)/python $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)
WITH_PIP = $(BIN)/python -m pip install $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
INSTALL = $(if $(UV),$(WITH_UV),$(WITH_PIP)) --quiet --constraint $(CONSTRAINTS) --editable

.PHONY: demo docs test test-fast test-slow test-all envs bench gpu-evidence chaos mutants lint format setup
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/snakemake tiny --cores all --quiet progress rules
	@echo; echo "Figures, tables and results/tiny/reproduction.md:"; ls -1 results/tiny/*.pdf results/tiny/*.png results/tiny/*.md results/tiny/*.tex results/tiny/*.csv

docs: $(TESTS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "Open build/site/index.html"

PYTEST := $(BIN)/pytest --durations 25
PARALLEL := --numprocesses logical --maxprocesses 8

test: lint test-fast

test-fast: $(TESTS_READY)
	$(PYTEST) $(PARALLEL) --dist worksteal -m "not slow"

# Slow tests of one file share costly fixtures. The Slurm tests mostly wait for the cluster, so three of them run at
# once. Nothing else runs at the same time, because their jobs have time limits.
test-slow: $(TESTS_READY)
	$(PYTEST) $(PARALLEL) --dist loadfile -m slow --ignore tests/workflow/test_slurm.py
	$(PYTEST) --numprocesses 3 tests/workflow/test_slurm.py

test-all: test test-slow

envs: $(TESTS_READY)
	$(BIN)/python envs/write.py

bench: $(READY)
	$(BIN)/python -m benchmarks

gpu-evidence: $(TESTS_READY)
	$(BIN)/python -m benchmarks.gpu_evidence

chaos: $(TESTS_READY)
	$(BIN)/python tests/chaos.py --kills $(KILLS)

mutants: $(TESTS_READY)
	$(INSTALL) ".[mutants]"
	$(BIN)/python tests/mutants.py build/mutants

lint: $(TESTS_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/codespell

format: $(TESTS_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

setup: $(READY)

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(INSTALL) "."
	touch $@

# Does not depend on $(READY): from nothing, one installation makes both.
$(TESTS_READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[test]"
	touch $(READY) $@

# The oldest versions that pyproject.toml allows: make test-fast CONSTRAINTS=lowest.txt. The newest: CONSTRAINTS=/dev/null.
lowest.txt: pyproject.toml
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv
	build/uv/bin/uv pip compile --quiet --extra test --resolution lowest-direct --output-file $@ pyproject.toml

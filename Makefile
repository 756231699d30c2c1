# One word for each thing; each word sets up what it needs.
#   make demo    the whole program on the built-in dataset, 2 to 4 minutes after the installation
#   make test    the default tests
#   make check   formatting, lint, types, import contracts
#   make bench   comparisons with peers and limits, JSON in results/bench; about 55 minutes on an idle machine
PYTHON ?= python3.11
BIN := .venv/bin
STORAGE ?= results
# The model of the demo, as its last lines name it: a weak one has a version and no alias.
MODEL = $$(sed -n 's/^predict .*tuner.predict \([^ ]*\) FILE.*/\1/p' $(STORAGE)/demo.txt)

# Where this is set, as in many containers, each process compiles all that it imports: Ray alone starts a dozen,
# and the default tests took 14:50 instead of 8 minutes on two cores.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env demo test test-all check bench clean
.DEFAULT_GOAL := demo

env: .venv/installed

# Depends on the pins alone: the project is installed in place, so a changed source file installs nothing.
# uv takes a fifth of pip's processor time and unpacks on all cores; pip installs if uv cannot.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
.venv/installed: constraints.txt
	@echo "installing into .venv: 4.8 GB of packages, half a minute to three minutes"
	@$(PYTHON) -m venv .venv
	@{ $(PIP) uv && $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]'; } || \
		{ echo "uv cannot install here; pip does, more slowly"; $(PIP) -e '.[dev]'; }
	@touch $@

demo: env
	@$(BIN)/python -m pipelines.demo $(STORAGE)/demo-data > /dev/null
	@$(BIN)/python -m tuner.run search_spaces/quickstart.yaml --storage $(STORAGE) > $(STORAGE)/demo.txt; \
		code=$$?; cat $(STORAGE)/demo.txt; exit $$code
	@echo
	@$(BIN)/python -m tuner.predict $(MODEL) "$$(ls $(STORAGE)/demo-data/drum_and_bass/* | head -n 1)" --storage $(STORAGE)
	@echo
	@sed -n 's|^mlflow  *mlflow ui|All runs, side by side:  $(BIN)/mlflow ui|p' $(STORAGE)/demo.txt
	@echo "Your own audio:           $(BIN)/python -m tuner.run search_spaces/auto.yaml --data FOLDER --name NAME"

# Two processes; each test file, and all files that share a cluster, stay in one of them (tests/conftest.py).
test: env
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-all: env
	$(BIN)/python -m pytest -m ""

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

BENCH := $(STORAGE)/bench
bench: env
	@mkdir -p $(BENCH)
	$(BIN)/python -m benchmarks.logmel > $(BENCH)/logmel.json
	$(BIN)/python -m benchmarks.decode > $(BENCH)/decode.json
	$(BIN)/python -m benchmarks.duplicates > $(BENCH)/duplicates.json
	$(BIN)/python -m benchmarks.hand_out > $(BENCH)/hand_out.json
	$(BIN)/python -m benchmarks.build --suffix wav > $(BENCH)/build-wav.json
	$(BIN)/python -m benchmarks.build --suffix mp3 --files 200 > $(BENCH)/build-mp3.json
	$(BIN)/python -m benchmarks.memory > $(BENCH)/memory.json
	$(BIN)/python -m benchmarks.train_step > $(BENCH)/train_step.json
	$(BIN)/python -m benchmarks.recipe > $(BENCH)/recipe.json
	$(BIN)/python -m benchmarks.recipe --accuracy > $(BENCH)/accuracy.json
	$(BIN)/python -m benchmarks.loader > $(BENCH)/loader.json
	$(BIN)/python -m benchmarks.workers > $(BENCH)/workers.json
	$(BIN)/python -m benchmarks.embedding > $(BENCH)/embedding.json

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# One word for each thing; each word sets up what it needs.
#   make demo    the whole program on the built-in dataset, 2 to 4 minutes after the installation
#   make test    the default tests
#   make check   formatting, lint, types, import contracts
#   make lock    lock.txt and constraints.txt anew, from pyproject.toml
#   make sbom    a CycloneDX list of what is installed, with licences, in results/sbom.json
#   make audit   known vulnerabilities of the locked packages; its codes are in .ci/audit
#   make rivals  Optuna, Ray Tune, Ludwig, autrainer and this program on DATA=FOLDER (default: the demo), MINUTES=10 each
#   make bench   comparisons with peers and limits, JSON in results/bench; about 55 minutes on an idle machine
PYTHON ?= python3.11
BIN := .venv/bin
STORAGE ?= results
MINUTES ?= 10
DATA ?= $(STORAGE)/demo-data
# The model of the demo, as its last lines name it: a weak one has a version and no alias.
MODEL = $$(sed -n 's/^predict .*tuner.predict \([^ ]*\) FILE.*/\1/p' $(STORAGE)/demo.txt)

# Where this is set, as in many containers, each process compiles all that it imports: Ray alone starts a dozen,
# and the default tests took 14:50 instead of 8 minutes on two cores.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env lock sbom audit demo test test-all check bench rivals clean
.DEFAULT_GOAL := demo

env: .venv/installed

# Depends on the lock alone: the project is installed in place, so a changed source file installs nothing.
# Every package, and what builds this one, must have a hash of lock.txt. uv takes a fifth of pip's processor time
# and unpacks on all cores; pip installs if uv cannot.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# Compiled once: otherwise each process that a first command starts compiles what it imports.
UV := $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python
install = $(1) --require-hashes -r lock.txt && $(1) --no-deps --no-build-isolation -e .
.venv/installed: lock.txt
	@echo "installing into .venv: 4.8 GB of packages, half a minute to three minutes"
	@$(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' lock.txt > .venv/uv.txt
	@{ $(PIP) --require-hashes -r .venv/uv.txt && $(call install,$(UV)); } || \
		{ echo "uv cannot install here; pip does, more slowly"; $(call install,$(PIP)); }
	@touch $@

# After a change of pyproject.toml; UPGRADE=NAME or NAME==VERSION renews one package, the others keep their versions.
# Users install with constraints.txt, without hashes: pip refuses hashes beside a folder.
lock:
	$(BIN)/uv pip compile -q --python-platform linux --python-version 3.11 --all-extras --generate-hashes --no-annotate \
		--no-header $(addprefix --upgrade-package ,$(UPGRADE)) pyproject.toml -o lock.txt
	sed -n 's/^\([^ ]*==[^ ]*\) .*/\1/p' lock.txt > constraints.txt

# Tools that the project does not depend on: uv fetches these versions when they are asked for.
sbom: env
	@mkdir -p $(STORAGE)
	$(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py environment --pyproject pyproject.toml \
		-o $(STORAGE)/sbom.json .venv

audit: env
	@PATH="$(BIN):$$PATH" bash .ci/audit $(STORAGE)/audit.json

demo: env
	@$(BIN)/python -m pipelines.demo $(STORAGE)/demo-data > /dev/null
	@$(BIN)/python -m tuner.run search_spaces/quickstart.yaml --storage $(STORAGE) > $(STORAGE)/demo.txt; \
		code=$$?; cat $(STORAGE)/demo.txt; exit $$code
	@echo
	@$(BIN)/python -m tuner.predict $(MODEL) "$$(ls $(STORAGE)/demo-data/drum_and_bass/* | head -n 1)" --storage $(STORAGE)
	@echo
	@sed -n 's|^mlflow  *\(.*\)mlflow ui|All runs, side by side:  \1$(BIN)/mlflow ui|p' $(STORAGE)/demo.txt
	@echo "Your own audio:           $(BIN)/python -m tuner.run search_spaces/auto.yaml --data FOLDER --name NAME"

# Two processes; each test file, and all files that share a cluster, stay in one of them (tests/conftest.py).
test: env
	$(BIN)/python -m pytest -n 2

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
	$(BIN)/python -m benchmarks.changed > $(BENCH)/changed.json
	$(BIN)/python -m benchmarks.train_step > $(BENCH)/train_step.json
	$(BIN)/python -m benchmarks.recipe > $(BENCH)/recipe.json
	$(BIN)/python -m benchmarks.recipe --accuracy > $(BENCH)/accuracy.json
	$(BIN)/python -m benchmarks.loader > $(BENCH)/loader.json
	$(BIN)/python -m benchmarks.workers > $(BENCH)/workers.json
	$(BIN)/python -m benchmarks.embedding > $(BENCH)/embedding.json

RIVALS = benchmarks.rivals --minutes $(MINUTES) --out $(STORAGE)/rivals
rivals: env
	$(BIN)/python -m $(RIVALS) --data $(DATA)
	$(BIN)/python -m $(RIVALS) --data $(DATA) --kill

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

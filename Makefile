PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV ?= .venv
BIN = $(VENV)/bin
WORKSPACE ?= demo-workspace

.PHONY: demo test lint install
demo: install
	$(BIN)/flywheel demo --workspace $(WORKSPACE)

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/lint-imports

install: $(VENV)/.installed

# Constraints pin every version, so the install resolves nothing afresh.
$(VENV)/.installed: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --progress-bar off -c constraints.txt -e ".[dev]"
	touch $@

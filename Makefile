PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV ?= .venv
BIN = $(VENV)/bin
WORKSPACE ?= demo-workspace

.PHONY: demo test lint audit install
demo: install
	$(BIN)/flywheel demo --workspace $(WORKSPACE)

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# Asks the advisory database about every pinned version, so it needs the network.
audit: install
	$(BIN)/pip install --disable-pip-version-check --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

install: $(VENV)/.installed

# Constraints pin every version, so the install resolves nothing afresh.
$(VENV)/.installed: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --progress-bar off -c constraints.txt -e ".[dev]"
	touch $@

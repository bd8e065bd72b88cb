# `make demo` and `make test` each do all of their own set-up; a second run starts at once.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?= test
NATIVE := $(wildcard xla_ops/*.* xla_ops/*/*)

.PHONY: demo test lint docs setup clean gpu-test gpu-benchmark gpu-native

demo: setup
	$(BIN)/python -m launch.distill --config=configs/demo.py --workdir=runs/demo

test: export OPENBLAS_NUM_THREADS := 1  # two workers use both cores
test: setup  # a file's tests in one process: they share runs and compiled programs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python tools/lint_names.py
	$(BIN)/python tools/lint_imports.py
	$(BIN)/clang-format --dry-run -Werror xla_ops/*/*.h xla_ops/*/*.cc xla_ops/*/*.cu tests/cuda_*.cu tests/cuda_driver.h tests/cuda_on_cpu/*

docs: setup  # into site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# On a machine with an NVIDIA GPU; BUILD.md says what they need. RESULTS receives figures.
PY ?= $(firstword $(wildcard $(BIN)/python) $(PYTHON))
ask = $(shell nvidia-smi --query-gpu=$(1) --format=csv,noheader 2>/dev/null | head -1)
CAPABILITY ?= $(subst .,,$(call ask,compute_cap))
RESULTS ?= benchmarks/results/$(shell echo "$(call ask,name)" | tr 'A-Z ' 'a-z_')
WORKERS ?= 12
TESTS ?= rasterize reference ragged gaussians parameterizations fit trajectory distribution \
	gradient_matching experts networks norm_pool augment transforms evaluate
DRIVERS := build/gpu/cuda_driver build/gpu/cuda_norm_pool_driver
gpu-test gpu-benchmark: export PATH := $(PATH):/usr/local/cuda/bin
gpu-test gpu-benchmark: export XLA_PYTHON_CLIENT_PREALLOCATE := false

# Nothing is kept of what XLA chooses here: it would find it again whatever its flags are then.
gpu-test: gpu-native $(DRIVERS)
	JAX_COMPILATION_CACHE_DIR= JAX_DEFAULT_MATMUL_PRECISION=highest XLA_FLAGS="$(XLA_FLAGS) \
		--xla_gpu_autotune_level=0 --xla_gpu_exclude_nondeterministic_ops=true" \
		$(PY) -m pytest -q -n $(WORKERS) --dist loadfile -o filterwarnings=default \
		$(TESTS:%=tests/test_%.py)
	for driver in $(DRIVERS); do \
		$$driver && for tool in memcheck racecheck initcheck synccheck; do \
			compute-sanitizer --tool=$$tool --error-exitcode=1 $$driver || exit; done || exit; done

# The rasterizer's kernels are timed one by one, and counted after the fit's 300 steps.
gpu-benchmark: gpu-native
	mkdir -p $(RESULTS)
	XLA_FLAGS="$(XLA_FLAGS) --xla_gpu_command_buffer_scheduling_mode=SERIALIZE" \
		$(PY) -m launch.benchmark rasterize --peers --out=$(RESULTS)/rasterize.json
	for name in size precision experts pytorch; do XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 \
		$(PY) -m launch.benchmark $$name --out=$(RESULTS)/$$name.json || exit; done
	for kernel in forward gather; do rm -f build/gpu/$$kernel.ncu-rep; \
		XLA_FLAGS="$(XLA_FLAGS) --xla_gpu_enable_command_buffer=" \
		ncu --clock-control none --set full -f -o build/gpu/$$kernel -k regex:$${kernel}_kernel \
			--launch-skip 305 --launch-count 2 --kill yes \
			$(PY) -m launch.benchmark rasterize --shapes=C; \
		ncu --import build/gpu/$$kernel.ncu-rep >$(RESULTS)/$$kernel.txt || exit; done

gpu-native:
	@test -n "$(CAPABILITY)" || { echo "error: nvidia-smi was expected to find a GPU"; exit 2; }
	cmake -S xla_ops -B build/gpu -DGSDD_CUDA_ARCHITECTURES=$(CAPABILITY)-real \
		-DPython_EXECUTABLE=$$($(PY) -c 'import sys; print(sys.executable)')
	cmake --build build/gpu -j && cmake --install build/gpu --prefix .

build/gpu/%: tests/%.cu tests/cuda_driver.h $(NATIVE) | gpu-native
	nvcc -std=c++17 -O3 -lineinfo -arch=sm_$(CAPABILITY) -Ixla_ops -o $@ $<

setup: $(VENV)/.installed

# Built in isolation, against the FFI headers that pyproject.toml names.
$(VENV)/.installed: pyproject.toml $(NATIVE)
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer was not found"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[$(EXTRA)]"
	touch $@

clean:
	rm -rf $(VENV) build runs site

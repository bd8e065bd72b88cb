# `make demo` and `make test` each do all of their own set-up; a second run starts at once.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?= test
NATIVE := $(wildcard xla_ops/*)

.PHONY: demo test lint setup clean gpu-native gpu-test gpu-rasterizer gpu-steps \
	gpu-experts gpu-flagship gpu-pixels gpu-dm

demo: setup
	$(BIN)/python -m launch.distill --config=configs/demo.py --workdir=runs/demo

test: setup
	$(BIN)/python -m pytest -q -n 2 --durations=15

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror xla_ops/*.h xla_ops/*.cc xla_ops/*.cu tests/cuda_driver.cu tests/cuda_on_cpu/*

# On a machine with an NVIDIA GPU. PY is a Python with JAX for CUDA and this package's needs.
GPU := $(shell nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | \
	tr 'A-Z ' 'a-z_')
RESULTS = benchmarks/results/$(or $(GPU),no_gpu)
PY ?= $(BIN)/python

gpu-native:  # the custom calls for PY
	cmake -S xla_ops -B build/gpu -DPython_EXECUTABLE=$(shell command -v $(PY))
	cmake --build build/gpu -j && cmake --install build/gpu --prefix .

gpu-test: gpu-native
	$(PY) -m pytest -q
	for tool in memcheck racecheck initcheck; do \
		XLA_PYTHON_CLIENT_PREALLOCATE=false compute-sanitizer --tool=$$tool --error-exitcode=1 \
			$(PY) -m pytest -q tests/test_rasterize.py tests/test_ragged.py || exit 1; done

gpu-rasterizer: gpu-native
	mkdir -p $(RESULTS)
	XLA_PYTHON_CLIENT_PREALLOCATE=false $(PY) -m launch.benchmark rasterize --peers \
		--out=$(RESULTS)/rasterize.json

gpu-steps: gpu-native  # a step of trajectory matching and an epoch of an expert beside PyTorch
	mkdir -p $(RESULTS)
	XLA_PYTHON_CLIENT_PREALLOCATE=false $(PY) -m launch.benchmark pytorch --out=$(RESULTS)/pytorch.json
	$(PY) -m launch.benchmark experts --out=$(RESULTS)/experts.json

# Each goes on where it was stopped. FLAGS are the launch scripts': --config.experts.num_experts=20.
gpu-experts: gpu-native
	$(PY) -m launch.train_experts --config=configs/cifar10_tm_ipc1.py $(FLAGS)

gpu-flagship: gpu-experts
	$(PY) -m launch.distill --config=configs/cifar10_tm_ipc1.py --workdir=runs/cifar10_tm_ipc1 $(FLAGS)

gpu-pixels: gpu-experts
	$(PY) -m launch.distill --config=configs/cifar10_tm_ipc1_pixels.py --workdir=runs/pixels $(FLAGS)

gpu-dm: gpu-native
	$(PY) -m launch.distill --config=configs/cifar10_dm_ipc1.py --workdir=runs/cifar10_dm_ipc1 $(FLAGS)

setup: $(VENV)/.installed

# The build's own needs first, then the package in place: xla_ops is compiled against the jaxlib
# that it will be loaded beside. setuptools and wheel are for dependencies that come as source only.
$(VENV)/.installed: pyproject.toml $(NATIVE)
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer was not found"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check \
		setuptools wheel "scikit-build-core>=0.10" "pybind11>=2.13" ninja "jaxlib>=0.10" \
		"cmake>=3.18"
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -e ".[$(EXTRA)]"
	touch $@

clean:
	rm -rf $(VENV) build runs

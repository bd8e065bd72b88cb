# On a machine with one NVIDIA GPU, a network or not: `make gpu-first` and the like come here.
#
#   PY=python3          a Python with JAX for CUDA and this package's needs
#   RESULTS=folder      where figures, logs and what a run needs to go on are written
#   LIMIT=540           seconds after which a target stops; the same target resumes
#   FLAGS=--config.x=y  reach the launch scripts
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.SILENT:
export PATH := $(PATH):/usr/local/cuda/bin
export PYTHONUNBUFFERED := 1

PY ?= .venv/bin/python
ask = $(shell nvidia-smi --query-gpu=$(1) --format=csv,noheader 2>/dev/null | head -1)
GPU := $(shell echo "$(call ask,name)" | tr 'A-Z ' 'a-z_')
CAPABILITY := $(subst .,,$(call ask,compute_cap))
RESULTS ?= benchmarks/results/$(or $(GPU),no_gpu)
LIMIT ?= 540
WORKERS ?= 12

# What is compiled is kept, and so is which algorithms were found to be fastest. JAX puts the
# second into a folder of the first.
JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/build/gpu/xla
export JAX_COMPILATION_CACHE_DIR
CHOSEN = xla_gpu_per_fusion_autotune_cache_dir
# Only algorithms that give the same bits each time. What is kept of them has a folder of its own:
# XLA looks an algorithm up by the instruction only, whatever it may choose from this time.
cache = export JAX_COMPILATION_CACHE_DIR=$(JAX_COMPILATION_CACHE_DIR)_$(1); \
	mkdir -p $$JAX_COMPILATION_CACHE_DIR/$(CHOSEN)
SAME_BITS = export XLA_FLAGS="$(XLA_FLAGS) --xla_gpu_exclude_nondeterministic_ops=true"; \
	$(call cache,same_bits)
comma := ,
SHARED = export XLA_PYTHON_CLIENT_PREALLOCATE=false  # the GPU's memory, with another process

# A command for what is left of LIMIT, with a record. Out of time is no failure.
begin = mkdir -p $(RESULTS) $(JAX_COMPILATION_CACHE_DIR)/$(CHOSEN)
left = $$((SECONDS < $(LIMIT) ? $(LIMIT) - SECONDS : 1))
limited = { timeout -s INT -k 30 $(left) $(2) 2>&1 | tee -a $(RESULTS)/$(1).log || \
	{ status=$$?; [ $$SECONDS -ge $(LIMIT) ] || exit $$status; \
	echo "$(1): stopped after $(LIMIT) s"; exit 0; }; }
benchmark = $(begin); $(call limited,$(1),$(PY) -m launch.benchmark $(1) --out=$(RESULTS)/$(1).json $(2))

.PHONY: gpu-native gpu-test gpu-sanitize gpu-rasterizer gpu-size gpu-profile gpu-precision \
	gpu-experts-at-once gpu-pytorch gpu-same-bits gpu-experts gpu-run gpu-flagship gpu-codes \
	gpu-pixels gpu-dm

# By content, because whatever brings a checkout here may give its files new dates.
native_sources = cat xla_ops/*.* xla_ops/*/* | sha256sum
suffix = $(PY) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))'
gpu-native:  # the custom calls for PY
	if [ "$$(cat build/gpu/built 2>/dev/null)" = "$$($(native_sources))" ] && \
		[ -e gsdd_jax/_native_cuda$$($(suffix)) ]; then exit 0; fi; \
	mkdir -p build/gpu; rm -f build/gpu/built; \
	cmake -S xla_ops -B build/gpu $(if $(shell command -v ninja),-G Ninja) \
		-DPython_EXECUTABLE=$$(realpath -s $$(command -v $(PY))) \
		$(if $(CAPABILITY),-DGSDD_CUDA_ARCHITECTURES=$(CAPABILITY)-real) && \
	cmake --build build/gpu -j && cmake --install build/gpu --prefix . && \
	$(native_sources) >build/gpu/built

# What runs otherwise on a GPU than on a CPU. A product in TF32 would differ from the tests' own
# computations; searching for the fastest algorithms would take most of the time.
TESTS ?= rasterize reference ragged gaussians parameterizations fit trajectory distribution \
	gradient_matching experts networks norm_pool augment transforms evaluate
gpu-test: gpu-native
	$(begin); $(SHARED) JAX_DEFAULT_MATMUL_PRECISION=highest \
		XLA_FLAGS="$(XLA_FLAGS) --xla_gpu_autotune_level=0 \
		--xla_gpu_exclude_nondeterministic_ops=true"; $(call cache,test); \
	timeout -s INT -k 30 $(LIMIT) $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --durations=10 \
		-o filterwarnings=default $(TESTS:%=tests/test_%.py) 2>&1 | tee $(RESULTS)/test.log

DRIVERS = build/gpu/cuda_driver build/gpu/cuda_norm_pool_driver
driver_sources = cat tests/cuda_*driver.* xla_ops/*/*.h xla_ops/*/*.cu | sha256sum
$(DRIVERS): FORCE
	mkdir -p build/gpu; [ -e $@ ] && [ "$$(cat $@.built 2>/dev/null)" = "$$($(driver_sources))" ] || \
	{ nvcc -std=c++17 -O3 -lineinfo -arch=sm_$(or $(CAPABILITY),90) -Ixla_ops -o $@ \
		tests/$(@F).cu && $(driver_sources) >$@.built; }
FORCE:

SANITIZERS ?= memcheck racecheck initcheck synccheck
gpu-sanitize: $(DRIVERS)
	$(begin); failed=; for driver in $(DRIVERS); do \
		name=$${driver##*/}; $$driver | tee $(RESULTS)/$$name.log || failed="$$failed $$name"; \
		for tool in $(SANITIZERS); do \
			log=$(RESULTS)/$${name}_$$tool.log; \
			timeout -k 30 $(left) compute-sanitizer --tool=$$tool --error-exitcode=1 $$driver \
				>$$log 2>&1 || failed="$$failed $${name}_$$tool"; \
			echo "$$name, $$tool, $$SECONDS s:"; tail -n 3 $$log; done; done; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

gpu-rasterizer: gpu-native  # with its peers; SHAPES=A,D or all; one kernel at a time
	$(SHARED) XLA_FLAGS="$(XLA_FLAGS) --xla_gpu_command_buffer_scheduling_mode=SERIALIZE"; \
	$(call benchmark,rasterize,--peers $(if $(SHAPES),--shapes=$(SHAPES)))

gpu-size: gpu-native  # the largest batch and resolution
	export XLA_PYTHON_CLIENT_PREALLOCATE=false XLA_PYTHON_CLIENT_MEM_FRACTION=0.95; \
	$(call benchmark,size)

gpu-precision: gpu-native  # a matching step and an expert's epoch in TF32, bfloat16 and float32
	$(call benchmark,precision)

gpu-experts-at-once: gpu-native
	$(call benchmark,experts)

gpu-pytorch: gpu-native  # the same, compared with PyTorch
	$(SHARED); $(call benchmark,pytorch)

# The counters of both kernels on one shape, after the fit's 300 steps.
SHAPE ?= C
gpu-profile: gpu-native
	$(begin); $(SHARED) XLA_FLAGS="$(XLA_FLAGS) --xla_gpu_enable_command_buffer="; \
	for kernel in forward backward; do \
		report=$(RESULTS)/$${kernel}_$(SHAPE); \
		timeout -k 30 $$(($(LIMIT) / 2)) ncu --clock-control none --set full -f -o $$report \
			-k regex:$${kernel}_kernel --launch-skip 305 --launch-count 2 --kill yes \
			$(PY) -m launch.benchmark rasterize --shapes=$(SHAPE) || true; \
		ncu --import $$report.ncu-rep | tee $$report.txt; done

# The same small run twice; the second one is given only what a second sitting would have.
gpu-same-bits: gpu-native
	$(begin); $(SAME_BITS); rm -rf build/gpu/same; mkdir -p build/gpu/same/2; \
	for run in 1 2; do \
		[ $$run = 1 ] || cp -r build/gpu/same/1/$(CHOSEN) build/gpu/same/2/; \
		mkdir -p build/gpu/same/$$run/$(CHOSEN); \
		for script in train_experts "distill --workdir=build/gpu/same/run$$run"; do \
			JAX_COMPILATION_CACHE_DIR=$(CURDIR)/build/gpu/same/$$run timeout $(LIMIT) \
			$(PY) -m launch.$$script --config=cifar10_tm_cpu --config.scale=0.002 \
			--config.data.name=cifar10_mini \
			--config.experts.dir=build/gpu/same/experts$$run $(FLAGS); done; done; \
	cmp build/gpu/same/run{1,2}/distilled.safetensors && \
	echo "twice the same bits" | tee $(RESULTS)/same_bits.log

# Runs. Each stops itself in time, leaves what it needs to go on in $(RESULTS)/<run>.tar, and goes
# on from there with FROM=<run>.tar or from the WORKDIR of before. A run's directory is bound to
# its config: begin with the real number of steps, stop anywhere, and give the same FLAGS again.
# Experts are not in the file. They are trained again from their seed, or found in runs/experts.
run = $(begin); $(SAME_BITS); $(if $(FROM),tar -xf $(FROM);) \
	workdir=$(or $(WORKDIR),runs/$(1)); \
	mkdir -p $$workdir/chosen; chosen=$$JAX_COMPILATION_CACHE_DIR/$(CHOSEN); \
	cp -r --update $$workdir/chosen/. $$chosen/; keep() { cp -r $$chosen/. $$workdir/chosen/; \
		tar -cf $(RESULTS)/$(1).tar $$workdir; }; trap keep EXIT; \
	$(if $(2),$(call limited,$(1),$(PY) -m launch.train_experts --config=$(CONFIG) $(FLAGS));) \
	$(call limited,$(1),$(PY) -m launch.distill --config=$(CONFIG) --workdir=$$workdir \
		--config.distill.checkpoint_every=100 $(FLAGS))

gpu-experts: gpu-native
	$(begin); $(SAME_BITS); \
	$(call limited,experts,$(PY) -m launch.train_experts --config=cifar10_tm:ipc=1 $(FLAGS))

gpu-flagship: CONFIG = cifar10_tm:ipc=1
gpu-codes: CONFIG = cifar10_tm:ipc=1,codes
gpu-pixels: CONFIG = cifar10_tm_pixels
gpu-dm: CONFIG = cifar10_dm
gpu-run gpu-flagship gpu-codes gpu-pixels gpu-dm: gpu-native  # gpu-run CONFIG=cifar10_tm:ipc=10
	[ -e "configs/$(firstword $(subst :, ,$(CONFIG))).py" ] || { echo "error: CONFIG=$(CONFIG):" \
		"expected a config, such as cifar10_tm:ipc=10"; exit 2; }; \
	$(call run,$(subst $(comma),_,$(subst =,,$(subst :,_,$(CONFIG)))),$(findstring _tm,$(CONFIG)))

# Each target is one line of the command line; `make` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN     = $(BIN)/rdpbench run $(SETTINGS)

# make bench CODEC=jpeg,webp DATA=kodak RATES=20,50,80 METRICS=psnr,ms-ssim LIMIT=4 DEVICE=cuda:0 WORKERS=2
SETTINGS = $(if $(CODEC),codec=$(CODEC)) $(if $(DATA),data=$(DATA)) $(if $(RATES),rate=$(RATES)) $(if $(BPP),bpp=$(BPP)) \
           $(if $(METRICS),metrics=$(METRICS)) $(if $(LIMIT),limit=$(LIMIT)) $(if $(DEVICE),device=$(DEVICE)) \
           $(if $(WORKERS),workers=$(WORKERS)) $(if $(WEIGHTS),weights=$(WEIGHTS)) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup bench plan test check figures report regress reproduce doctor docs check-gpu test-kernels \
        kernels-sse kernels-avx2 test-wheel test-core

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  CODEC= DATA= RATES= BPP= METRICS= LIMIT= DEVICE= WORKERS= WEIGHTS= choose; ARGS='key=value ...' takes any setting"

setup: $(VENV)/.ready ## install what is needed into .venv, pinned by hash

$(VENV)/.ready: requirements.lock requirements-build.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-build.lock
	@echo "installing the pinned packages (about 6 GB with PyTorch; a few minutes)"
	$(BIN)/pip install --quiet --require-hashes --no-build-isolation -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

bench: setup ## encode, decode, score; tables and figures (without CODEC and DATA: the offline default)
	$(RUN)

plan: setup ## what bench would do: tasks left, expected time, what is missing
	$(BIN)/rdpbench plan $(SETTINGS)

figures: setup ## tables and figures of RUN again (default: samples)
	$(BIN)/rdpbench show $(or $(RUN_NAME),$(DATA),samples)

report: setup ## a folder to open in a browser: curves, tables and images of RUN_NAME (default: DATA or samples)
	$(BIN)/rdpbench report $(or $(RUN_NAME),$(DATA),samples) $(ARGS)

regress: setup ## does a run still give the stored curves? (without CODEC and DATA: the offline default)
	$(BIN)/rdpbench regress $(SETTINGS)

reproduce: setup ## published numbers again (ARGS='webp data.path=/where/kodak/is')
	$(BIN)/rdpbench reproduce $(ARGS)

doctor: setup ## what this machine can run, and how to get what is missing
	$(BIN)/rdpbench doctor

docs: setup ## the documentation site, into build/docs; a link that leads nowhere is an error
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs

# Of two cores a third process takes what two leave while they wait for processes of their own.
test: setup ## the tests, without the slow ones
	$(BIN)/python -m pytest -q -n 3

# What numpy, scipy and torch take on an old processor, and on one without AVX-512. The tests that hold numbers to digits.
kernels-sse  = OPENBLAS_CORETYPE=Prescott ONEDNN_MAX_CPU_ISA=SSE41
kernels-avx2 = OPENBLAS_CORETYPE=HASWELL ONEDNN_MAX_CPU_ISA=AVX2
DIGITS       = $(addprefix tests/,$(addsuffix .py,$(addprefix metrics/test_,psnr frechet mmd self_check) \
               study/test_bradley_terry $(addprefix results/test_,bd bootstrap crossover)))

test-kernels: kernels-sse kernels-avx2 ## the same numbers under the arithmetic of other processors?

# Without those that draw many samples to see how often an interval covers the truth: no kernel changes that.
kernels-sse kernels-avx2: setup
	env $($@) $(BIN)/python -m pytest -q $(DIGITS) -k "not cover and not of_few_images and not a_population"

test-wheel: setup ## the light core from its wheel, from an empty folder, in an environment of its own
	$(BIN)/python -m pytest -q -m slow tests/test_wheel.py

# A part of the tests that needs no extra; what meets one is skipped. PYTHON=python3.13 takes another Python.
CORE = $(addprefix tests/,metrics/test_msssim.py metrics/test_psnr.py metrics/test_ssimulacra2.py results/test_bd.py \
       results/test_bootstrap.py runners/test_cost.py test_image.py)

test-core: ## the light core from its wheel, with the newest packages: PYTHON=python3.13 make test-core
	$(PYTHON) -m venv build/core
	build/core/bin/pip install --quiet --upgrade . pytest pytest-xdist hypothesis
	build/core/bin/python -m pytest -q -n 2 $(CORE)

test-all: setup ## all tests
	$(BIN)/python -m pytest -q -n 2 -m "slow or not slow"

check-gpu: setup ## every neural codec and metric at full width on a GPU: time, memory, difference to the CPU
	$(BIN)/python benchmarks/check_gpu.py $(ARGS)

check: setup ## lint and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Two commands do everything on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Compiled programs are kept between runs: the second run of anything skips most of its compile time.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test check lint format types golden oracle-test benchmark clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

# One stamp a set of extras; each is made again when the project's own files change.
$(VENV)/.core: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[video]'
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.oracle: $(VENV)/.dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[oracle]'
	touch $@

demo: $(VENV)/.core  ## draw landmarks, build the paper's networks, push a frame through them
	$(BIN)/python -m th_jax.rendering.figures --out out

test: $(VENV)/.dev  ## the default test suite
	$(BIN)/python -m pytest -n 2

check: lint types test  ## everything that must be green before a commit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

golden: $(VENV)/.oracle  ## make the golden arrays of tests/golden again, with PyTorch
	$(BIN)/python -m tests.golden.make_golden

oracle-test: $(VENV)/.oracle  ## tests beside PyTorch, ONNX Runtime and scikit-image
	$(BIN)/python -m pytest -m oracle

benchmark: $(VENV)/.oracle  ## networks beside the same networks in PyTorch
	$(BIN)/python -m benchmarks.networks

clean:
	rm -rf $(VENV) out .jax_cache build *.egg-info

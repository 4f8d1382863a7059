# make run: try it; make test: test it. Both install what they need into .venv; you need Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the service runs with, and everything that its developers need in addition.
RUNTIME := $(VENV)/.runtime
READY := $(VENV)/.ready

# MkDocs: no advertisement for its successor.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help install run serve test check format types imports docs site screenshots package bench lock clean ci

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

test: $(READY) ## Run all tests; installs the servers it needs first where there are none.
	@$(BIN)/python tools/install_servers.py
	$(BIN)/python -m pytest

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

ci: test check package ## Everything that must hold.

clean: ## Remove what the build made.
	rm -rf $(VENV) build dist var .mypy_cache .pytest_cache .ruff_cache .hypothesis

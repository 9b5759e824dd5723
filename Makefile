# `make run` and `make test` need only Python 3.11, 3.12 or 3.13, make and a package index: both make their own virtual
# environment first.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
INSTALLED := $(VENV)/.installed
# Something of every package that takes seconds: numerics, physics, solvers, networks, files.
QUICK := $(addprefix tests/, test_files.py test_data.py networks/test_mlp.py training/test_losses.py \
	$(addprefix ops/test_, advection.py batch_norm.py batched.py lanczos.py stencils.py) \
	simulators/test_poisson.py simulators/test_low_dimensional.py solvers/test_gauss_newton.py)

.DEFAULT_GOAL := help
.PHONY: help run lint check test versions docs hashes clean

help:
	@echo "make run    train on Poisson with SIP and Adam side by side (about three minutes); goes on where it stopped"
	@echo "make check  lint, formatting, types and the quick tests: less than a minute, for work in between"
	@echo "make test   lint, formatting, types and all tests"
	@echo "make versions  install under each Python in PYTHONS, by default 3.11, 3.12 and 3.13, and run the quick tests there"
	@echo "make docs   the documentation as a site: docs/_build/index.html"
	@echo "make hashes  requirements-hashes.txt anew, after a change of requirements.txt"
	@echo "make clean  remove the virtual environment, caches and builds; runs/ stays"

run: $(INSTALLED)
	$(VENV)/bin/python applications/poisson.py --methods sip adam --steps 60 --output runs/poisson --resume

check: lint
	$(VENV)/bin/python -m pytest -q $(QUICK)

test: lint
	# Two processes: tracing and compiling, most of the time, keep one core busy. A file's tests share what they compile;
	# tests/conftest.py puts the files that take longest first, where xdist would put those of the most tests.
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Needs neither the virtual environment nor what is in it.
versions:
	@"$(PYTHON)" benchmarks/python_versions.py $(QUICK) $(if $(PYTHONS),--pythons $(PYTHONS))

lint: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# Digests of all files of the pinned versions, as the package index tells them.
hashes: $(INSTALLED)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip compile requirements.txt --generate-hashes --no-deps --universal --python-version 3.11 \
		--no-annotate --quiet --custom-compile-command "make hashes" --output-file requirements-hashes.txt

# Without a network once its packages are installed; a warning (a dead link, a docstring that does not render) is an error.
docs: $(VENV)/.docs-installed
	$(VENV)/bin/python -m sphinx --fresh-env --quiet --fail-on-warning --keep-going docs docs/_build

$(VENV)/.docs-installed: requirements-docs.txt $(INSTALLED)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements-docs.txt
	@touch $@

# Installed editable, so that a change in keras_sip/ needs no new installation.
$(INSTALLED): requirements.txt setup.py
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
		echo "Expected Python 3.11, 3.12 or 3.13. Received $$("$(PYTHON)" --version 2>/dev/null || echo none) ($(PYTHON))." \
			"Install one of them, or name it: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@echo "Installing TensorFlow and the other pinned packages into $(VENV): a few minutes, once."
	@"$(PYTHON)" -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache .xla_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

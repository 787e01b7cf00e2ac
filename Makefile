# The commands of the repository; `make` alone lists them. Needed: python3 (3.11 to 3.13) with venv,
# make, git. Another Python: `make test PYTHON=python3.12`.
# torch for the CPU only, some GB smaller, on Linux: put
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu before the first `make`.

PYTHON ?= python3
VENV ?= .venv
BOOK_VENV ?= .venv-book

# Notebooks find the kernel, and snakemake its programs, without an activated environment.
export PATH := $(abspath $(VENV))/bin:$(PATH)

INSTALL = -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
BUILD_BOOK = jupyter-book build . -W -n --keep-going
PDF ?= _build/book.pdf
NODE_MODULES = _build/node/node_modules
NOTEBOOKS = $(wildcard notebooks/*.ipynb)

.PHONY: help book site check-pages pdf test test-all certify verify benchmark lint clean

help:
	@echo "make book       run the demo study on this machine and build the book with it"
	@echo "make site       build the committed book (no torch needed)"
	@echo "make check-pages  open every built page in Chromium: axe-core, phone width, no JavaScript (needs node)"
	@echo "make pdf        the built book as one PDF (needs Chromium or Chrome)"
	@echo "make test       the tests, without the slow ones and those for a GPU"
	@echo "make test-all   all tests"
	@echo "make benchmark  throughput as ratios to plain implementations"
	@echo "make certify    does the code here compute what that of the committed runs computed?"
	@echo "make verify     run reports again from committed trainings, compare all numbers (5 minutes)"
	@echo "make lint       style of code and notebooks, spelling"
	@echo "make clean      remove the built book and caches; runs and environments stay"

# An environment is installed once; a stamp in it says with which extras. A changed pyproject.toml
# or constraints.txt installs again.
%/bin/pip:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed, not " + sys.version.split()[0] + ": say which with make PYTHON=...")'
	$(PYTHON) -m venv $*

$(VENV)/.book: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/python $(INSTALL) --editable '.[train,book,study]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/python $(INSTALL) --editable '.[train,book,study,dev]'
	@touch $@ $(VENV)/.book

$(BOOK_VENV)/.book: pyproject.toml constraints.txt | $(BOOK_VENV)/bin/pip
	$(BOOK_VENV)/bin/python $(INSTALL) --editable '.[book]'
	@touch $@

book: $(VENV)/.book
	$(VENV)/bin/sparsejepa reproduce --preset demo
	$(VENV)/bin/$(BUILD_BOOK)
	@echo "The book is at $(CURDIR)/_build/html/index.html"

site: $(BOOK_VENV)/.book
	$(BOOK_VENV)/bin/$(BUILD_BOOK)
	@echo "The book is at $(CURDIR)/_build/html/index.html"

$(NODE_MODULES)/axe-core:
	npm install --silent --no-audit --no-fund --prefix _build/node axe-core@4.14.1 playwright-core@1.65.1

check-pages: $(NODE_MODULES)/axe-core
	node book/check_pages.mjs _build/html $(NODE_MODULES)

pdf: $(BOOK_VENV)/.book
	$(BOOK_VENV)/bin/python book/make_pdf.py _build/html $(PDF)

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m "not slow and not gpu"

test-all: $(VENV)/.test
	$(VENV)/bin/python -m pytest

benchmark: $(VENV)/.test
	rm -f book/benchmarks.csv
	SPARSEJEPA_BENCHMARKS=book/benchmarks.csv $(VENV)/bin/python -m pytest tests/benchmarks

certify: $(VENV)/.book
	$(VENV)/bin/sparsejepa certify

verify: $(VENV)/.book
	$(VENV)/bin/sparsejepa verify --preset reference --minutes 5

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/nbstripout --verify --keep-id --extra-keys "metadata.papermill metadata.language_info cell.metadata.papermill" $(NOTEBOOKS)
	$(VENV)/bin/codespell

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis .benchmarks

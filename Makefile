# Needs Python 3.11 or later, make and pip; everything else goes into .venv.
#   make demo    one run; then plan, mapping and hardware of a small network chosen together, measured, and the page of it
#   make test    the tests
#   make lint    style and types
#   make docs    the documentation as a site in site/, warnings are errors
#   make clean   remove what the other targets made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
SITE := site

.PHONY: demo test lint docs clean

demo: $(VENV)/.installed-run
	mkdir -p $(DEMO)
	rm -rf $(DEMO)/study
	$(BIN)/accelsim run efficientvit_b1 --arch m2vit --plan m2q
	OMP_NUM_THREADS=1 $(BIN)/accelsim codesign examples/codesign_demo.yaml -o $(DEMO)/study
	$(BIN)/accelsim report $(DEMO)/study -o $(DEMO)/report.html
	@echo "Open $(DEMO)/report.html in a browser; the designs are in $(DEMO)/study/designs."

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	rm -rf $(SITE)
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html -d build/doctrees docs $(SITE)
	@echo "Open $(SITE)/index.html in a browser."

clean:
	rm -rf $(VENV) $(DEMO) $(SITE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was installed from, so a second make installs nothing.
$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[quant,search]' -c constraints.txt
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	touch $@

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[docs]' -c constraints.txt
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, found " + sys.version.split()[0] + "; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

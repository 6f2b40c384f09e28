# Needs Python 3.11 or later, make and pip; everything else goes into .venv.
#   make demo    three runs, one with the exhaustive mapper, a sweep and its Pareto front as a picture; a small network
#                quantized, measured, executed in integers and priced
#   make test    the tests
#   make lint    style and types
#   make clean   remove what the other targets made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test lint clean

demo: $(VENV)/.installed-run
	mkdir -p $(DEMO)
	rm -f $(DEMO)/sweep.sqlite
	$(BIN)/accelsim run efficientvit_b1 --arch m2vit --plan m2q
	$(BIN)/accelsim run efficientvit_b1 --arch trio_vit --plan uniform8
	$(BIN)/accelsim run efficientvit_b1 --arch m2vit --plan m2q --mapper exhaustive:edp
	$(BIN)/accelsim sweep examples/sweep_b1.yaml -o $(DEMO)/sweep.sqlite --workers 1
	$(BIN)/accelsim pareto $(DEMO)/sweep.sqlite -o $(DEMO)/pareto.png
	$(BIN)/accelsim quantize digits_hybrid --method m2q --data digits -o $(DEMO)/digits_m2q
	$(BIN)/accelsim eval $(DEMO)/digits_m2q --data digits --split test --against digits_hybrid --integer
	$(BIN)/accelsim run $(DEMO)/digits_m2q/workload.json --plan $(DEMO)/digits_m2q/plan.yaml --arch m2vit
	@echo "The picture is $(DEMO)/pareto.png, its numbers are $(DEMO)/pareto.csv."

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was installed from, so a second make installs nothing.
$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[quant]' -c constraints.txt
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, found " + sys.version.split()[0] + "; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

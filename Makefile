# make study: install, run the studies, draw every figure, write study/index.html.   make test: everything that is checked.
# Both work on a fresh machine with Python >= 3.11; both go on where they stopped.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
FAMILIES := $(filter-out colorized_mnist, $(basename $(notdir $(NOTEBOOKS))))
export BIASSTUDY_RUNS ?= $(CURDIR)/runs
export BIASSTUDY_STUDY ?= $(CURDIR)/study
PAPERMILL := $(BIN)/papermill --no-progress-bar --log-level ERROR

.PHONY: install study test lint unit faults nbval notebooks lock clean

install: $(STAMP)

$(STAMP):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e .[dev]
	rm -f $(VENV)/.installed-*
	touch $@

study: install
	mkdir -p $(BIASSTUDY_STUDY)
	$(BIN)/python -m biasstudy run params/colorized_mnist/offline.yaml --workers 2
	$(PAPERMILL) notebooks/colorized_mnist.ipynb $(BIASSTUDY_STUDY)/colorized_mnist.ipynb -f params/colorized_mnist/offline.yaml
	printf '%s\n' $(FAMILIES) | xargs -P 2 -I NAME $(PAPERMILL) notebooks/NAME.ipynb $(BIASSTUDY_STUDY)/NAME.ipynb
	$(BIN)/python -m biasstudy report

test: lint unit faults nbval

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: install
	$(BIN)/pytest tests --ignore tests/test_faults.py -n 2 --dist loadfile --durations 10

faults: install
	$(BIN)/pytest tests/test_faults.py --durations 5

nbval: install
	$(BIN)/pytest --nbval notebooks -n 2 --dist loadfile

notebooks: install
	$(BIN)/python -m biasstudy notebooks $(NOTEBOOKS)

lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra dev -c requirements.lock \
		--no-annotate --no-header --no-emit-index-url -o requirements.lock

clean:
	rm -rf $(VENV) runs study

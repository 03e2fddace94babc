# make study: install, run the studies, draw every figure, write study/index.html.   make test: everything that is checked.
# make check: the fastest of the checks, in 90 s. All work on a fresh machine with Python >= 3.11 and go on where they stopped.
# make VENV=FOLDER TORCH=here ...: into an environment that has torch, which stays as it is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
FAMILIES := $(filter-out colorized_mnist, $(basename $(notdir $(NOTEBOOKS))))
export BIASSTUDY_RUNS ?= $(CURDIR)/runs
export BIASSTUDY_STUDY ?= $(CURDIR)/study
PAPERMILL := $(BIN)/papermill --no-progress-bar --log-level ERROR

TORCH ?= lock

.PHONY: install study test check lint unit slow faults nbval docs notebooks lock clean

install: $(STAMP)

# The lock names torch with CUDA's libraries. The log level: kernels warn at every start that they listen on this machine, and at some ends that they were stopped.
$(STAMP):
	@echo "Installing into $(VENV), once: torch, diffusers, JupyterLab and what they need, 6.5 GB on disk on Linux."
	@echo "4 GB of it are CUDA's libraries; with a torch that is there, or one for the CPU alone: docs/install.md"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	grep -v -E $(if $(filter here,$(TORCH)),'^(torch|torchvision|triton|nvidia-.*|cuda-.*)==','^$$') requirements.lock > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c $(VENV)/constraints.txt -e .[dev]
	mkdir -p $(VENV)/etc/ipython
	echo '{"IPKernelApp": {"log_level": "CRITICAL"}}' > $(VENV)/etc/ipython/ipython_kernel_config.json
	rm -f $(VENV)/.installed-*
	touch $@

study: install
	mkdir -p $(BIASSTUDY_STUDY)
	$(BIN)/python -m biasstudy run params/colorized_mnist/offline.yaml --workers 2
	$(PAPERMILL) notebooks/colorized_mnist.ipynb $(BIASSTUDY_STUDY)/colorized_mnist.ipynb -f params/colorized_mnist/offline.yaml
	printf '%s\n' $(FAMILIES) | xargs -P 2 -I NAME $(PAPERMILL) notebooks/NAME.ipynb $(BIASSTUDY_STUDY)/NAME.ipynb
	$(BIN)/python -m biasstudy report

test: lint unit slow

# what most changes break first: what is imported, asked, keyed, counted and concluded
CHECKED := package experiment catalogue plans inference excess forecast
check: lint
	$(BIN)/pytest $(CHECKED:%=tests/test_%.py) -n 2 --dist loadfile --durations 5

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: install
	$(BIN)/pytest tests --ignore tests/test_faults.py -n 2 --dist loadfile --durations 10

# processes that are killed, beside all notebooks
slow: install
	$(BIN)/pytest --nbval notebooks tests/test_faults.py -n 2 --dist loadfile --durations 5

faults: install
	$(BIN)/pytest tests/test_faults.py --durations 5

nbval: install
	$(BIN)/pytest --nbval notebooks -n 2 --dist loadfile

# the site; prints the path of its first page
docs: install
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . build/site

notebooks: install
	$(BIN)/python -m biasstudy notebooks $(NOTEBOOKS)

lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra dev -c requirements.lock \
		--no-annotate --no-header --no-emit-index-url -o requirements.lock

clean:
	rm -rf .venv runs study build docs/api

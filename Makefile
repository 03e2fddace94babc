# make study: install
	mkdir -p $(BIASSTUDY_STUDY)
	$(BIN)/python -m biasstudy run params/colorized_mnist/offline.yaml --workers 2
	$(PAPERMILL) notebooks/colorized_mnist.ipynb $(BIASSTUDY_STUDY)/colorized_mnist.ipynb -f params/colorized_mnist/offline.yaml
	printf '%s\n' $(FAMILIES) | xargs -P 2 -I NAME $(PAPERMILL) notebooks/NAME.ipynb $(BIASSTUDY_STUDY)/NAME.ipynb
	$(BIN)/python -m biasstudy report

test: lint unit faults nbval

# what most changes break first: what is imported, asked, keyed, counted and concluded
CHECKED := package docs keys experiment parameters catalogue protocols intervals registries
check: lint
	$(BIN)/pytest $(CHECKED:%=tests/test_%.py) -n 2 --dist loadfile --durations 5

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
	rm -rf .venv runs study

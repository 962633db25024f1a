# wenlu: `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
BIN = .venv/bin
INSTALLED = .venv/installed

.PHONY: demo test lint campaigns peer benchmarks clean

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "wenlu needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(INSTALLED)

demo: $(INSTALLED)  ## train, score and write on a text that every Python carries: three minutes of training
	$(BIN)/wenlu demo --out demo-run

test: $(INSTALLED)  ## the tests, under ten minutes on two cores
	$(BIN)/python -m pytest -q

lint: $(INSTALLED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

campaigns: $(INSTALLED)  ## the slow tests: kills, damaged checkpoints; results in benchmarks/results
	$(BIN)/python -m pytest -q -m slow

peer: $(INSTALLED)  ## beside llama.cpp, which is compiled first: logits, ids, texts, then speed
	CMAKE_ARGS="-DGGML_NATIVE=ON $$CMAKE_ARGS" $(BIN)/pip install --quiet -c constraints.txt -e ".[peer]"
	$(BIN)/python -m pytest -q -m peer
	$(BIN)/python benchmarks/decode_llamacpp.py && $(BIN)/python benchmarks/page.py

benchmarks: $(INSTALLED)  ## the figures of docs/benchmarks.md; three hours of an otherwise idle machine
	$(BIN)/python benchmarks/time_to_loss.py
	$(BIN)/python benchmarks/lstm.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/pip install --quiet -c constraints.txt -e ".[benchmarks]" && $(BIN)/python benchmarks/dedup.py
	$(BIN)/python benchmarks/prepare.py && $(BIN)/python benchmarks/dirty.py
	$(BIN)/python benchmarks/tokenization.py
	$(BIN)/python benchmarks/train_throughput.py && $(BIN)/python benchmarks/bert.py
	$(BIN)/python benchmarks/polarity.py && $(BIN)/python benchmarks/translation.py
	$(BIN)/python benchmarks/kernels.py && $(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/selection.py && $(BIN)/python benchmarks/prompt_search.py
	$(BIN)/pip install --quiet -c constraints.txt -e ".[harness]" && $(BIN)/python benchmarks/eval_speed.py
	$(BIN)/python benchmarks/instructions.py build/instructions
	$(BIN)/python benchmarks/instruction_search.py build/instructions
	$(BIN)/python benchmarks/page.py

clean:
	rm -rf .venv demo-run build *.egg-info

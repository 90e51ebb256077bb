# `make serve` runs the service, `make test` the whole gate. Needs Python 3.11 and a C compiler.
PYTHON ?= python3
VENV := .venv
UV := $(VENV)/bin/uv
# `make PROFILE=light …` leaves out torch (5 GB) and what needs it: phash, color, local and text stay.
PROFILE ?= full
READY := $(VENV)/.ready-$(PROFILE)
COMPILE := -q --generate-hashes --upgrade --no-header --no-annotate --no-emit-index-url --no-emit-find-links
LOCKS := requirements.lock $(if $(filter full,$(PROFILE)),requirements-neural.lock)

SIMD := pillow-simd==12.1.1.post0
# Tools that are fetched when they are used.
AUDIT := pip-audit==2.10.1
SBOM := cyclonedx-bom==7.5.0

.PHONY: serve test soak bench clients screenshots format lock simd audit sbom licences

serve: $(READY)
	@exec $(VENV)/bin/ambience serve

test: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# What takes too long for the gate: the tests marked `soak`, then adds, deletes, searches, redeploys
# and kills of replicas and of PostgreSQL at once, for MINUTES.
MINUTES ?= 15
soak: $(READY)
	$(VENV)/bin/pytest -q -m soak
	$(VENV)/bin/python -m tests.soak --minutes $(MINUTES)

# The speed tables of docs/benchmarks.md: make bench PHOTOS=some/folder/of/photographs
bench: $(READY)
	$(VENV)/bin/python -m benchmarks.serving_modes
	$(VENV)/bin/python -m benchmarks.start
	$(VENV)/bin/python -m benchmarks.service $(PHOTOS)
	$(VENV)/bin/python -m benchmarks.backfill $(PHOTOS)
	$(VENV)/bin/python -m benchmarks.indexes
	$(VENV)/bin/python -m benchmarks.stores

# Generate Python and TypeScript clients from the OpenAPI document, check their types and use them.
# It installs the generators, from PyPI and npm, into a temporary folder.
clients: $(READY)
	$(VENV)/bin/python -m tests.generated_clients

# The pictures of the page in docs/images, by an installed Chromium.
screenshots: $(READY)
	$(VENV)/bin/python -m tests.screenshots

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(READY): requirements.lock requirements-neural.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ambience needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	$(VENV)/bin/python -m pip install -q --require-hashes -r $(VENV)/uv.lock
ifeq ($(PROFILE),full)
	$(VENV)/bin/python -m pip install -q $$(grep '^torch==' requirements-neural.lock)
endif
	$(UV) pip install -q --compile-bytecode --python $(VENV)/bin/python $(LOCKS:%=-r %)
	$(UV) pip install -q --python $(VENV)/bin/python --no-deps -e .
	@touch $@

# Pillow-SIMD in Pillow's place: resizes several times as fast. It is built here, against the image
# libraries (libavif, libjpeg, liblcms, libopenjp2, libtiff, libwebp and their headers); where one is
# missing Pillow comes back.
simd: $(UV)
	$(UV) pip uninstall -q --python $(VENV)/bin/python pillow pillow-simd
	$(UV) pip install -q --python $(VENV)/bin/python --no-deps --no-binary pillow-simd $(SIMD) \
	  && $(VENV)/bin/python -m models.pictures.codecs \
	  || { $(UV) pip uninstall -q --python $(VENV)/bin/python pillow-simd; \
	       $(UV) pip install -q --python $(VENV)/bin/python $$(sed -n 's/^\(pillow==[^ ]*\).*/\1/p' requirements.lock); exit 1; }

$(UV):
	@$(MAKE) $(READY)

# Known vulnerabilities of the locked packages, and a list of what is installed (CycloneDX). Both need
# a network, so neither is part of the gate.
audit: $(READY)
	sed -n 's/^\([a-z][^ ]*==[^ ]*\).*/\1/p' requirements.lock requirements-neural.lock > $(VENV)/audit.txt
	$(UV) tool run $(AUDIT) --disable-pip --no-deps -r $(VENV)/audit.txt

sbom: $(READY)
	$(UV) tool run --from $(SBOM) cyclonedx-py environment --pyproject pyproject.toml \
	  --output-file sbom.json $(VENV)/bin/python

licences: $(READY)
	$(VENV)/bin/python -m tests.licences > docs/reference/licences.md

# Bring the pinned versions up to date. What torch itself needs differs by its build: pip adds it. The
# builds of torch and torchvision for CPUs come from another index, so these two have no hashes.
lock: $(READY)
	$(UV) pip compile $(COMPILE) --extra serve --extra dev -o requirements.lock pyproject.toml
	$(UV) pip compile $(COMPILE) --extra serve --extra dev --extra neural --extra ocr -c requirements.lock pyproject.toml \
	  | grep -vxFf requirements.lock | awk '/^[a-z]/ {keep = !/^(nvidia|cuda|triton)/; bare = /^torch(vision)?==/} \
	    keep && !(bare && /--hash/) {if (bare) sub(/ \\$$/, ""); print}' > requirements-neural.lock

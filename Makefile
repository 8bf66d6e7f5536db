# Everything is made in .venv/, from nothing but Python 3.11+, make and a C compiler.
#   make PYTHON=python3.12 ...   takes another interpreter

PYTHON ?= python3
BIN := .venv/bin
# --no-compile: bytecode is made at first import, for the modules in use, which halves the time of installation
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --constraint constraints.txt

# models are small: more threads would only wait for one another
CIRCUITS := OMP_NUM_THREADS=1 $(BIN)/unmerge circuits

export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export PYTHONDONTWRITEBYTECODE :=
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format zoo bench certificate symmetries rounding families calibration coverage partial-merges verification full-finetunes recover recover-forms results audit-image audit-schema orthoreg small-proposal study second-zoo harder-zoo circuits docs docs-commands clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.runtime  ## train, merge, decompose, ablate and audit on the embedded zoo; results in runs/demo
	$(BIN)/unmerge demo --out runs/demo

test: .venv/.dev  ## run the tests (ARGS="-k gram" passes options to pytest)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 8 --dist loadfile $(ARGS)

lint: .venv/.dev  ## style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

zoo: .venv/.runtime  ## rebuild the embedded zoo from its seed (SEED=1 makes another one)
	$(BIN)/unmerge zoo --rebuild --out src/unmerge_lab/zoo/data $(if $(SEED),--seed $(SEED))

bench: .venv/.runtime  ## what a decomposition costs at real sizes, beside other ways, and how it grows; writes docs/bench.md
	$(BIN)/python -m unmerge_lab.benchmarks.sizes --json runs/bench.json $(if $(ROW),--only $(ROW))
	$(BIN)/python -m unmerge_lab.pages.bench_page

certificate: .venv/.runtime  ## measure the certificate on targets whose ingredients are known; figures in runs/certificate.json
	$(BIN)/python -m unmerge_lab.benchmarks.certificate --json runs/certificate.json $(if $(ROW),--only $(ROW))
	$(BIN)/python -m unmerge_lab.pages.certificate_page

families: .venv/.runtime  ## train 20 real-like dictionaries of adapters (runs of checkpoints, seeds, an author's), 340 in all; figures in runs/families.json
	$(BIN)/python -m unmerge_lab.benchmarks.families --part 0/2 & $(BIN)/python -m unmerge_lab.benchmarks.families --part 1/2 && wait
	$(BIN)/python -m unmerge_lab.benchmarks.families_summary

calibration: .venv/.runtime  ## p-values and claims of identity on the families, which are trained first; writes docs/calibration-measured.md; goes on where it was stopped
	test -f runs/families/d19/manifest.json || $(MAKE) families
	$(BIN)/python -m unmerge_lab.benchmarks.calibration --part 0/2 & $(BIN)/python -m unmerge_lab.benchmarks.calibration --part 1/2 && wait
	$(BIN)/python -m unmerge_lab.benchmarks.calibration
	$(BIN)/python -m unmerge_lab.pages.calibration_page

rounding: .venv/.runtime  ## name the order of rounding of merges by PEFT, mergekit and scripts; writes docs/rounding-measured.md; goes on where it was stopped
	$(BIN)/python -m unmerge_lab.benchmarks.rounding
	$(BIN)/python -m unmerge_lab.pages.rounding_page

coverage: .venv/.runtime  ## do intervals hold after further training, requantisation, noise? writes docs/coverage-measured.md; goes on where it was stopped
	$(BIN)/python -m unmerge_lab.benchmarks.coverage
	$(BIN)/python -m unmerge_lab.pages.coverage_page

partial-merges: .venv/.runtime  ## adapters that act in a part of the model; writes docs/partial-measured.md; goes on where it was stopped
	$(BIN)/python -m unmerge_lab.benchmarks.partial_merges
	$(BIN)/python -m unmerge_lab.pages.partial_page

runs/full/checkpoints: .venv/.runtime
	$(BIN)/python -m unmerge_lab.benchmarks.full_finetunes --only-train

verification: .venv/.runtime  ## verify 48 targets of the zoo, every component and every control; writes docs/verification-measured.md
	$(BIN)/python -m unmerge_lab.benchmarks.verification --json runs/verification.json $(if $(TARGET),--only $(TARGET))
	$(BIN)/python -m unmerge_lab.pages.verification_page

full-finetunes: .venv/.runtime  ## the same with full fine-tunes of the zoo's base as atoms; trains twenty of them first
	$(BIN)/python -m unmerge_lab.benchmarks.full_finetunes --json runs/full_finetunes.json
	$(BIN)/python -m unmerge_lab.pages.certificate_page

recover: .venv/.runtime runs/full/checkpoints  ## recover the recipes of 340 new targets, two at a time; writes docs/recover-measured.md; goes on where it was stopped
	$(BIN)/python -m unmerge_lab.benchmarks.recover --part 0/2 & $(BIN)/python -m unmerge_lab.benchmarks.recover --part 1/2 && wait
	$(BIN)/python -m unmerge_lab.benchmarks.recover
	$(BIN)/python -m unmerge_lab.pages.recover_page
	$(BIN)/python -m unmerge_lab.pages.recover_example

recover-forms: .venv/.runtime  ## recover the forms in which people write mergekit configurations; writes docs/recover-forms.md; goes on where it was stopped
	$(BIN)/python -m unmerge_lab.benchmarks.recover_forms $(if $(FORM),--only "$(FORM)")
	$(BIN)/python -m unmerge_lab.pages.recover_forms_page

results: demo  ## measure again what docs/results.md says, and write it
	$(BIN)/python -m unmerge_lab.pages.results

study: .venv/.runtime  ## compare all methods on targets of the zoo, and write docs/study.md; goes on where it was stopped
	$(BIN)/unmerge study studies/zoo.yml --out runs/study --report docs/study.md

second-zoo: .venv/.runtime  ## the same on a zoo from another seed, which is built first; writes docs/second-zoo.md
	test -d runs/zoo-1 || $(BIN)/unmerge zoo --rebuild --seed 1 --out runs/zoo-1
	$(BIN)/unmerge study studies/second-zoo.yml --out runs/second-study --report docs/second-zoo.md

harder-zoo: .venv/.runtime  ## the published study's methods and the certificate on adapters as alike as its own, which are trained first; writes docs/harder-zoo.md
	test -d runs/harder-zoo || $(BIN)/python -m unmerge_lab.benchmarks.harder_zoo
	$(BIN)/unmerge study studies/harder.yml --out runs/harder-study --report docs/harder-zoo.md

small-proposal: .venv/.runtime  ## the whole proposal in small, on the zoo: train, merge, decompose, verify; goes on where it was stopped
	test -d runs/zoo || $(BIN)/unmerge zoo --out runs/zoo
	$(BIN)/unmerge study studies/small.yml --out runs/small --jobs 1

orthoreg: .venv/.runtime  ## train adapters with and without OrthoReg, merge and decompose them; writes docs/orthoreg.md; goes on where it was stopped
	$(BIN)/python -m unmerge_lab.benchmarks.orthoreg
	$(BIN)/python -m unmerge_lab.pages.orthoreg_page

circuits: .venv/.runtime  ## find circuits in toy models and in the zoo's base, and write docs/circuits-measured.md; goes on where it was stopped
	for toy in tms parallel tmcs high-rank high-rank-shared square square-5 square-early square-5-early; do \
		test -d runs/circuits/$$toy || $(CIRCUITS) train $$toy --out runs/circuits/$$toy || exit $$?; \
		$(CIRCUITS) decompose runs/circuits/$$toy && $(CIRCUITS) intervene runs/circuits/$$toy || exit $$?; \
	done
	test -f runs/circuits/tms/baselines.json || $(CIRCUITS) decompose runs/circuits/tms --baselines
	test -d runs/circuits/language || $(CIRCUITS) language --out runs/circuits/language
	test -f runs/circuits/frontier.json || OMP_NUM_THREADS=1 $(BIN)/python -m unmerge_lab.benchmarks.circuits_frontier --json runs/circuits/frontier.json
	$(CIRCUITS) report runs/circuits --out runs/circuits/page.html --page docs/circuits-measured.md

docs: .venv/.dev  ## build the documentation into site/, warnings are errors
	$(BIN)/mkdocs build --strict

symmetries: .venv/.runtime  ## decompose targets that are laid out otherwise than their base; writes docs/symmetries-measured.md
	$(BIN)/python -m unmerge_lab.benchmarks.symmetries --json runs/symmetries.json
	$(BIN)/python -m unmerge_lab.pages.symmetries_page

audit-image: demo  ## take the picture of the demo's audit that the documents show; needs Chromium
	$(BIN)/python scripts/audit_image.py

audit-schema: .venv/.runtime  ## write the JSON schema of an audit's record
	$(BIN)/python scripts/audit_schema.py

docs-commands: .venv/.dev  ## write docs/commands.md from the command line's own help
	$(BIN)/typer unmerge.cli utils docs --name unmerge --output docs/commands.md

clean:  ## remove what was built, but not .venv/ and runs/
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unmerge needs Python 3.11 or newer, found " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	@echo "Installing into .venv/, once: about a minute, longer over a slow line"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) --upgrade pip
	@$(PIP) --editable ".[all]"
	@touch $@

.venv/.dev: .venv/.runtime
	@echo "Installing the development tools into .venv/, once"
	@$(PIP) --editable ".[all,dev]"
	@touch $@

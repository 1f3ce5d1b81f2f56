# make demo   set up .venv and compile the network that ships with the project
# make test   set up .venv and run lint, types and the test suite
# Both print what they do; a second call finds everything in place.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
DEMO   := demo-out

.PHONY: demo test torch lint types unit slow boards matrix constraints pages install clean help

help:
	@sed -n '1,3p' Makefile | cut -c3-

install: $(STAMP)

# The stamp is as new as what decides the installation, so an unchanged checkout installs nothing.
$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --upgrade pip
	@echo "== installing edgec and its tools into $(VENV) (constraints.txt)"
	@PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --constraint constraints.txt --editable '.[tflite,tflite-runtime,report,metrics,dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@echo "== compiling examples/digits.onnx: half the multiplications, int8, ONNX and TFLite"
	$(VENV)/bin/edgec compile examples/digits.onnx --data examples/digits/calib.npz --eval examples/digits/eval.npz \
	  --budget macs=50% --precision int8 --format onnx,tflite --force -o $(DEMO)
	@echo "== open $(DEMO)/report.html in a browser"

test: torch lint types unit

# Only the tests that read torch models need it, and it is large: `make test WITHOUT_TORCH=1` skips those tests instead.
torch: $(STAMP)
	@if [ -z "$(WITHOUT_TORCH)" ] && ! $(PY) -c 'import torch' 2>/dev/null; then \
	  echo "== installing torch, for the tests that read torch models (WITHOUT_TORCH=1 leaves it out)"; \
	  $(PY) -m pip install --quiet --constraint constraints.txt torch; \
	fi

lint: $(STAMP)
	@echo "== lint"
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	@echo "== types"
	$(VENV)/bin/mypy -p edgec
	$(VENV)/bin/mypy tests/face/stranger.py

unit: $(STAMP)
	@echo "== tests"
	$(VENV)/bin/pytest -n auto

# What `make test` leaves out for its length: other members of kinds that it has, the emulated boards, whole conformance suites.
slow: $(STAMP)
	$(VENV)/bin/pytest -n auto -m slow

# Emulated boards: the whole way to three of them, and every fault of a link. Needs root on Linux; about ten minutes.
boards: $(STAMP)
	@echo "== emulated boards"
	$(VENV)/bin/pytest -m "slow or not slow" tests/runtime/test_deploy_board.py tests/runtime/test_ssh_faults.py tests/runtime/test_ssh_standin.py

# Every Python with its oldest and newest dependencies, and every kernel of OpenBLAS: hours on two cores, resumable.
matrix: $(STAMP)
	$(PY) bench/matrix.py

# The known-good set anew: newest versions where constraints.txt has none yet. Delete a line to let its package move.
constraints: $(STAMP)
	@$(PY) -m pip install --quiet uv
	@mkdir -p .build && grep -v -e '^#' -e '^torch==' constraints.txt > .build/constraints.txt
	$(VENV)/bin/uv pip compile pyproject.toml --extra tflite --extra tflite-runtime --extra report --extra metrics --extra dev --universal \
	  --python-version 3.10 --only-binary :all: --no-annotate --no-header --quiet --output-file .build/constraints.txt
	@# uv takes a version of backports-strenum that pip refuses on Python 3.11 and later.
	@{ grep '^#' constraints.txt; grep -v '^backports-strenum' .build/constraints.txt; grep '^torch==' constraints.txt; } > .build/new && mv .build/new constraints.txt

# docs/ops.md and docs/passes.md from the code's own tables; a test says where they are stale.
pages: $(STAMP)
	$(PY) docs/pages.py

clean:
	rm -rf $(VENV) .build $(DEMO) build *.egg-info

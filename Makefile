# One command each; `make help` lists them. Everything is installed into .venv, nothing outside the checkout.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FAST   := $(wildcard tradeback/_fast/*.pyx tradeback/_fast/*.pxd tradeback/_fast/*.h)
WEB    := tradeback/web
APT    := git python3-venv python3-dev gcc make
FUZZ_APT := clang libclang-rt-14-dev
FUZZ_SECONDS ?= 600
SERVICES_TESTS ?= tests/e2e
# One more than there are cores, for much of a test's time is waiting; each may start four servers.
WORKERS ?= $(shell n=$$(($$(nproc) + 1)); echo $$((n < 4 ? n : 4)))
SOAK_SECONDS ?= 3600
SOAK_MESSAGES ?= 5000
SOAK_CLIENTS ?= 1000
SANITIZE_TESTS ?= $(shell grep -lr --include="test_*.py" "^from tradeback._fast" tests/unit tests/property tests/playback)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# So many more tries of a download, a minute in all; pip's own five are over in some seconds.
export PIP_RETRIES ?= 8

.DEFAULT_GOAL := help
.PHONY: run build test services chaos soak check docs bench fuzz sanitize clean help

run: build  ## start everything: the exchange's market data where it can be reached, a simulated exchange otherwise
	$(BIN)/tradeback up

build: $(VENV)/.built $(WEB)/dist/index.html  ## make .venv, install, compile; leaves .venv/bin/tradeback

test: build  ## run the tests
	TRADEBACK_EXCHANGE=sim $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

services: build  ## run the end-to-end tests on the real services in place of the embedded stores
	TRADEBACK_EXCHANGE=sim TRADEBACK_TEST_SERVICES=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(SERVICES_TESTS)

chaos: build  ## the long forms: a hundred kills, two minutes of trading under faults for 200 clients
	TRADEBACK_EXCHANGE=sim TRADEBACK_CHAOS=1 $(BIN)/python -m pytest --timeout 1200 tests/chaos

soak: build  ## an hour under load, in which nothing may grow (SOAK_SECONDS, SOAK_MESSAGES a second, SOAK_CLIENTS)
	TRADEBACK_EXCHANGE=sim SOAK_SECONDS=$(SOAK_SECONDS) SOAK_MESSAGES=$(SOAK_MESSAGES) SOAK_CLIENTS=$(SOAK_CLIENTS) \
	  $(BIN)/python -m tests.soak

check: build  ## ruff, mypy on the Python parts and the stubs, eslint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python $(WEB)/build.py lint

docs: build  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: build  ## measure; bench/README.md says what each number means
	TRADEBACK_COMPILE=0 $(BIN)/pip install --quiet --no-build-isolation -e '.[bench]'
	TRADEBACK_EXCHANGE=sim $(BIN)/python -m bench

fuzz: build $(VENV)/.fuzzing  ## fuzz the decoder under sanitizers, and the parsers in Python, for FUZZ_SECONDS (600)
	@command -v clang >/dev/null || { echo "Fuzzing needs clang with libFuzzer. On Debian 12:"; \
	  echo "  apt-get install -y $(FUZZ_APT)"; exit 1; }
	TRADEBACK_EXCHANGE=sim $(BIN)/python -m tests.fuzz $(FUZZ_SECONDS)

$(VENV)/.fuzzing: $(VENV)/.installed
	$(BIN)/pip install --quiet --only-binary :all: 'atheris>=3.0,<4'
	@touch $@

# A copy of the tree with extensions of its own, so that the ordinary build stays as it is. Leaks are not looked for:
# the interpreter keeps what it allocates until the process ends.
sanitize: build  ## run the core's tests under AddressSanitizer and UndefinedBehaviorSanitizer
	mkdir -p build/sanitize
	rm -rf build/sanitize/tests
	git ls-files -z | tar --null -T - -cf - | tar -xf - -C build/sanitize
	cd build/sanitize && TRADEBACK_SANITIZE=1 ../../$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	cd build/sanitize && env LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=. TRADEBACK_EXCHANGE=sim \
	  ../../$(BIN)/python -m pytest -p no:cacheprovider $(SANITIZE_TESTS)

clean:  ## remove what was built
	rm -rf $(VENV) build dist bench/build $(WEB)/dist $(WEB)/node_modules *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find tradeback bench -name '*.so' -delete
	find tradeback/_fast \( -name '*.c' -o -name '*.html' \) -delete
	find . -name __pycache__ -prune -exec rm -rf {} +

help:  ## list the commands
	@awk -F ':.*  ## ' '/^[a-z][a-z-]*:.*  ## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The machine must bring an interpreter with venv and headers, and a C compiler; name the one line that mends it.
define MACHINE
import ensurepip, os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not ((3, 11) <= sys.version_info < (3, 14) and os.path.exists(header)))
endef
export MACHINE

$(VENV)/.machine:
	@command -v gcc >/dev/null && command -v git >/dev/null && $(PYTHON) -c "$$MACHINE" 2>/dev/null || { \
	  echo "Trade-Back needs Python 3.11 to 3.13 with venv and headers, gcc and git. On Debian 12:"; \
	  echo "  apt-get install -y $(APT)"; \
	  echo "Another interpreter than $(PYTHON) is chosen by: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "$(PYTHON)" > $@

# What was built for one interpreter is of no use to another.
ifeq ($(origin PYTHON),command line)
ifneq ($(wildcard $(VENV)/.machine),)
ifneq ($(shell cat $(VENV)/.machine),$(PYTHON))
ifeq ($(filter clean help,$(MAKECMDGOALS)),)
$(error $(VENV) was made with $(shell cat $(VENV)/.machine), not with $(PYTHON): run `make clean` first)
endif
endif
endif
endif

$(VENV)/.installed: pyproject.toml $(VENV)/.machine
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(VENV)/build-requires.txt
	$(BIN)/pip install --quiet -r $(VENV)/build-requires.txt
	TRADEBACK_COMPILE=0 $(BIN)/pip install --quiet --no-build-isolation -e '.[dev]'
	@touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(FAST)
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	@touch $@

# Without Node or its packages all but the page is there, and its address says how to build it.
$(WEB)/dist/index.html: $(wildcard $(WEB)/*.* $(WEB)/src/* $(WEB)/public/*) | $(VENV)/.installed
	@$(BIN)/python $(WEB)/build.py || { test $$? -eq 1 && test -z "$$CI" && \
	  echo "Everything else works. \`make build\` tries it again." >&2; }

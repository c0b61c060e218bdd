# Every target is complete from a fresh Debian 12 machine (as root or with sudo), and quick the
# second time.
SHELL := /bin/bash
.DELETE_ON_ERROR:

PRESET ?= release
PREFIX ?= /usr/local
BUILD := build/$(PRESET)
export TAKT_VENV ?= $(CURDIR)/.venv
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: help setup build demo demo-stop test lint sanitize bench fuzz install clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

setup: ## install system packages and TensorFlow
	@scripts/setup.sh

build: setup ## build everything
	@scripts/build.sh $(PRESET) all

demo: build ## train, serve, test and improve the MNIST model, and leave it running
	@$(TAKT_VENV)/bin/python scripts/demo.py

demo-stop: ## end what `make demo` left running
	@python3 scripts/demo.py stop

test: build ## run all tests, and fuzz each parser for a minute
	@scripts/build.sh fuzz fuzzers
	@echo 'subdirs($(PRESET) fuzz)' >build/CTestTestfile.cmake
	@ctest --test-dir build --output-on-failure --no-tests=error -j2

lint: build ## clang-tidy over every source file
	@scripts/lint.sh $(BUILD)

sanitize: setup ## the unit tests under ASan+UBSan and under TSan
	@scripts/build.sh asan unit_tests
	@scripts/build.sh tsan unit_tests
	@ctest --test-dir build/asan --output-on-failure --no-tests=error -j2
	@ctest --test-dir build/tsan --output-on-failure --no-tests=error -j2

bench: build ## measure: every figure in the README and docs comes from here
	@bench/run.sh $(BUILD)

fuzz: setup ## fuzz the parsers, each time anew (FUZZ_SECONDS=600 each, FUZZ=NAME for one)
	@scripts/build.sh fuzz fuzzers
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} FUZZ_SEED=0 ctest --test-dir build/fuzz \
	  -R "$(or $(FUZZ),.)" --output-on-failure --no-tests=error -j2

install: build ## install into PREFIX (default /usr/local)
	@DESTDIR=$(DESTDIR) cmake --install $(BUILD) --prefix $(PREFIX) >/dev/null
	@TAKT_VENV=$(DESTDIR)$(PREFIX)/lib/takt/venv scripts/setup.sh venv
	@echo "installed: $(DESTDIR)$(PREFIX)/bin/takt"

clean: ## remove what was built
	@rm -rf build

# The everyday commands. CMake does the work; see CMakePresets.json and `make help`.
DILEMMA_DEPS ?= $(CURDIR)/build/deps
export DILEMMA_DEPS
CC ?= cc
JOBS := $(shell nproc)
MODEL := $(DILEMMA_DEPS)/models/SmolLM2-135M-Instruct.Q4_1.gguf

.DEFAULT_GOAL := release
.PHONY: release deps demo test sim soak bench experiments san fuzz lint install package packages-test clean help

release: deps           ## build build/release/dilemma (fetches what it builds on first)
	@cmake --preset release >build/release.log 2>&1 || { cat build/release.log; exit 1; }
	@cmake --build --preset release -j $(JOBS)

deps:                   ## Debian packages, ggml, HiGHS
	@mkdir -p build
	@tools/deps --prefix $(DILEMMA_DEPS) base

model:                  ## the test model, SmolLM2-135M-Instruct (98 MB)
	@tools/deps --prefix $(DILEMMA_DEPS) model

demo: release model     ## everything once: measure, profile, plan, quantize, run over three nodes
	@build/release/dilemma demo --model $(MODEL) --dir build/demo

test: release           ## all tests, on the real model, against the reference implementations
	@tools/deps --prefix $(DILEMMA_DEPS) clang model llama python js
	@ctest --preset release

sim: release            ## SEEDS (10000) seeds FROM (1) of the simulator: coordinator and nodes over a virtual network and clock
	@build/release/netsim.sim_test --seeds $${SEEDS:-10000} --from $${FROM:-1}

soak: release           ## FAULTS (200) faults from SEED (1) on real processes: every text stays what it is
	@tools/deps --prefix $(DILEMMA_DEPS) model python
	@DILEMMA=$(CURDIR)/build/release/dilemma DILEMMA_NETLAB_BIN=$(CURDIR)/build/release/netlab DILEMMA_TEST_MODEL=$(MODEL) \
	  FAULTS=$${FAULTS:-200} SEED=$${SEED:-1} PACE=$${PACE:-1} $(DILEMMA_DEPS)/venv/bin/python tests/keeps_going_test.py

bench: release          ## speed figures, each beside its opponent in the same run
	@tools/deps --prefix $(DILEMMA_DEPS) model llama
	@for b in bench/*.sh; do echo "== $$b"; bash $$b || exit 1; done
	@tools/deps --prefix $(DILEMMA_DEPS) python
	@$(DILEMMA_DEPS)/venv/bin/python bench/plan --quick

experiments: release    ## the paper's studies into build/experiments; MODEL=DIR: the whole experiment on those weights
ifeq ($(origin MODEL),command line)
	@experiments/paper/whole.sh "$(MODEL)" build/experiments
else
	@for s in communication cpu storage servers quality; do echo "== $$s"; experiments/paper/run.py $$s -o build/experiments || exit 1; done
endif

san: deps               ## unit tests under ASan+UBSan, then the threaded ones under TSan
	@tools/deps --prefix $(DILEMMA_DEPS) clang model
	@for p in asan tsan; do cmake --preset $$p >build/$$p.log 2>&1 || { cat build/$$p.log; exit 1; }; \
	  cmake --build --preset $$p -j $(JOBS) && ctest --preset $$p || exit 1; done

fuzz: deps              ## every parser's fuzz target, FUZZ_SEC seconds each (20)
	@tools/deps --prefix $(DILEMMA_DEPS) clang
	@cmake --preset fuzz >build/fuzz.log 2>&1 || { cat build/fuzz.log; exit 1; }
	@cmake --build --preset fuzz -j $(JOBS) --target fuzz_targets
	@tools/fuzz build/fuzz $${FUZZ_SEC:-20}

lint: release           ## folder layers, header self-containment, warnings under gcc and clang
	@tools/check-layers
	@tools/deps --prefix $(DILEMMA_DEPS) clang
	@cmake --preset clang >build/clang.log 2>&1 || { cat build/clang.log; exit 1; }
	@cmake --build --preset clang -j $(JOBS)

install: release        ## into PREFIX (default /usr/local)
	@cmake --install build/release --prefix $${PREFIX:-/usr/local}

ARCH ?= $(shell dpkg --print-architecture)
PORTABLE := $(CURDIR)/build/portable/$(ARCH)
# Unit tests that an emulator does in seconds.
FOREIGN_TESTS := base.wire_test base.half_test base.json_test base.file_test model.gguf_test model.arch_test model.tokenizer_test model.unigram_test \
  engine.grammar_test plan.files_test net.message_test net.keys_test
package:                ## a .deb in build/portable/ARCH for any CPU of ARCH (amd64 or arm64; this machine's), from Debian 11 on
	@tools/deps --prefix $(PORTABLE)/deps --arch $(ARCH) portable
	@cmake -G Ninja -S . -B $(PORTABLE)/tree -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE=$(PORTABLE)/deps/sysroot/toolchain.cmake \
	  -DDILEMMA_DEPS=$(PORTABLE)/deps -DDILEMMA_TESTS=OFF -DDILEMMA_WERROR=OFF >$(PORTABLE)/configure.log 2>&1 || { cat $(PORTABLE)/configure.log; exit 1; }
	@cmake --build $(PORTABLE)/tree -j $(JOBS)
	@cd $(PORTABLE)/tree && DILEMMA_SYSROOT=$(PORTABLE)/deps/sysroot cpack -G DEB -B $(PORTABLE) -D SHLIBDEPS_EXECUTABLE=$(CURDIR)/tools/shlibdeps

packages-test: package  ## as root: the .deb in a fresh Debian 12 and 11, on emulated CPUs of several generations; of arm64: under qemu
	@tools/deps --prefix $(DILEMMA_DEPS) model python packages
ifeq ($(ARCH),$(shell dpkg --print-architecture))
	@DILEMMA_PYTHON=$(DILEMMA_DEPS)/venv/bin/python DILEMMA_TEST_MODEL=$(MODEL) tests/packages/any_cpu.sh $(PORTABLE)/*.deb $(PORTABLE)/deps/sysroot
else
	@$(MAKE) --no-print-directory release
	@DILEMMA=$(CURDIR)/build/release/dilemma DILEMMA_TEST_MODEL=$(MODEL) \
	  $(DILEMMA_DEPS)/venv/bin/python tests/packages/arm64.py $(PORTABLE)/*.deb $(PORTABLE)/deps/sysroot
	@cmake $(PORTABLE)/tree -DDILEMMA_TESTS=ON >$(PORTABLE)/configure.log
	@cmake --build $(PORTABLE)/tree -j $(JOBS) --target $(FOREIGN_TESTS)
	@ctest --test-dir $(PORTABLE)/tree --output-on-failure --timeout 600 -R '^($(subst $(eval ) ,|,$(FOREIGN_TESTS)))$$'
	@cmake $(PORTABLE)/tree -DDILEMMA_TESTS=OFF >$(PORTABLE)/configure.log
endif

clean:                  ## remove what was built, keep the dependencies
	@rm -rf build/release build/asan build/tsan build/fuzz build/clang

help:                   ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

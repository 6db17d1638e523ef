# The short way to everything; CMakeLists.txt is how it is built.
#
#   make              build build/moetune              make demo        fine-tune the demo's model
#   make test         install, build, run the tests    make demo-model  pre-train that model again
#   make setup        install what is missing          make check       format, includes, lengths
#   make asan         all tests under ASan and UBSan   make fuzz        each fuzz target, SECONDS=60 or INPUTS=20000000
#   make coverage     which lines of io/ and the checkpoint code tests run; fails below 95 %
#   make format       clang-format in place            make tidy        clang-tidy (slow)
#   make torture      faults, kills, corruption, hostile files at full length (docs/RELIABILITY.md): hours
#   make break-ops    each op off by 1 % must fail its tests    make mutation    mutants of base, io, routing
#   make study        every figure of docs/RESULTS.md again, two hours; goes on where it was stopped
#   make demo-routing the demo with each routing, in one table: 2 to 8 minutes on 2 cores
#
#   make install      program, library, manual, completions below PREFIX   make uninstall   takes them away
#   make deb          Debian packages, in build/debian                make check-deb     tries them
#   make check-suite SUITE=trixie   builds and tests in a clean system of that release; ARCH=arm64 for that machine
#
# CUDA=1 builds the CUDA backend into the same binary (needs nvcc 13).
# BUILD is the build folder, PREFIX where it is installed (/usr/local; DESTDIR stands before it), CC the compiler of a new one, CMAKE_ARGS go to CMake when it is made.
CUDA ?= 0
ifeq ($(CUDA),1)
override CMAKE_ARGS += -DMOETUNE_CUDA=ON
# nvcc where the toolkit's own installer puts it, when it is not on the path.
export PATH := $(PATH):/usr/local/cuda/bin
endif
BUILD ?= build
JOBS ?= $(shell nproc)
SECONDS ?= 60
CMAKE_ARGS ?=
TARGETS ?= moetune
PREFIX ?= /usr/local
DESTDIR ?=
# The programs whose tests scripts/coverage.sh runs.
COVERING = $(basename $(notdir $(foreach folder,base io train fuzz torture,$(wildcard tests/$(folder)/test_*.c tests/$(folder)/fuzz_*.c))))
FUZZERS = $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
ifeq ($(origin CC),default)
CC = gcc
endif
# What `scripts/setup.sh checks` installs: the release's own where 14 is not packaged.
CLANG ?= $(notdir $(or $(shell command -v clang-14),clang))

.PHONY: all setup test demo demo-routing demo-model check format tidy asan fuzz torture clean install uninstall deb check-deb check-suite break-ops mutation coverage study

all: $(BUILD)/CMakeCache.txt
ifeq ($(CUDA),1)
	@grep -q '^MOETUNE_CUDA:BOOL=ON' $< || cmake -S . -B $(BUILD) $(CMAKE_ARGS)
endif
	cmake --build $(BUILD) -j $(JOBS) --target $(TARGETS)

$(BUILD)/CMakeCache.txt:
	cmake -S . -B $(BUILD) -G "Unix Makefiles" -DCMAKE_C_COMPILER=$(CC) $(CMAKE_ARGS) \
	  || { rm -f $@; bash scripts/setup.sh --check; exit 1; }

setup:
	@bash scripts/setup.sh build

test: setup
	$(MAKE) all TARGETS=all
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

demo: setup
	$(MAKE) all TARGETS="moetune generate"
	bash demo/run.sh $(BUILD)

demo-routing: setup
	$(MAKE) all TARGETS="moetune generate"
	bash demo/routing.sh $(BUILD)

demo-model: setup
	$(MAKE) all TARGETS="moetune generate train_tokenizer"
	bash demo/pretrain.sh $(BUILD)

study: setup
	$(MAKE) all TARGETS="moetune generate_study train_tokenizer study_record study_tables"
	bash results/run.sh $(BUILD)

check:
	bash scripts/check-format.sh
	bash scripts/check-includes.sh
	bash scripts/check-lengths.sh

format:
	bash scripts/check-format.sh --fix

tidy: $(BUILD)/CMakeCache.txt
	bash scripts/tidy.sh $(BUILD)

asan: setup
	$(MAKE) all BUILD=$(BUILD)-asan TARGETS=all CMAKE_ARGS="-DMOETUNE_SANITIZE=ON"
	bash scripts/sanitized-tests.sh $(BUILD)-asan

fuzz:
	@bash scripts/setup.sh checks
	$(MAKE) all BUILD=$(BUILD)-fuzz TARGETS="$(FUZZERS)" CC=$(CLANG) \
	  CMAKE_ARGS="-DMOETUNE_FUZZ=ON -DMOETUNE_SANITIZE=ON"
	bash scripts/fuzz.sh $(BUILD)-fuzz $(if $(INPUTS),inputs=$(INPUTS),$(SECONDS))

coverage: setup
	$(MAKE) all BUILD=$(BUILD)-coverage TARGETS="moetune $(COVERING)" CMAKE_ARGS="-DMOETUNE_COVERAGE=ON"
	bash scripts/coverage.sh $(BUILD)-coverage

# PARTS="kills corruption" runs only these (tests/torture/test_*).
PARTS ?=
torture: setup
	$(MAKE) all TARGETS=all
	bash scripts/torture.sh $(BUILD) $(PARTS)

# Each op of the CPU backend off by 1 %: its own tests must fail.
break-ops: setup
	$(MAKE) all TARGETS="$(patsubst tests/ops/%.c,broken_%,$(filter-out tests/ops/test_cuda_%,$(wildcard tests/ops/test_*.c)))"
	bash scripts/break-ops.sh $(BUILD)

# SAMPLE= mutants drawn with SEED=, a few core-seconds each; those that live meet the sanitizers.
mutation: setup
	$(MAKE) all TARGETS="cli support parity no_backend"
	$(MAKE) all BUILD=$(BUILD)-asan TARGETS="cli support parity no_backend" CMAKE_ARGS="-DMOETUNE_SANITIZE=ON"
	SAMPLE="$(SAMPLE)" SEED="$(SEED)" JOBS="$(JOBS)" bash scripts/mutation.sh $(BUILD) $(BUILD)-asan

install: $(BUILD)/CMakeCache.txt
	$(MAKE) all TARGETS=packaged
	DESTDIR="$(DESTDIR)" cmake --install $(BUILD) --prefix "$(PREFIX)"

# What the last `make install` of this build folder wrote; folders stay where others have files in them.
uninstall:
	@test -f $(BUILD)/install_manifest.txt || { echo "nothing was installed from $(BUILD)"; exit 1; }
	sed 's|^|$(DESTDIR)|' $(BUILD)/install_manifest.txt | xargs -d '\n' rm -f --
	rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(PREFIX)"/share/doc/moetune/examples "$(DESTDIR)$(PREFIX)"/share/doc/moetune

check-deb: $(BUILD)/CMakeCache.txt
	$(MAKE) all TARGETS=packaged
	bash scripts/check-deb.sh $(BUILD)

SUITE ?=
ARCH ?=
check-suite:
	bash scripts/check-suite.sh $(BUILD) "$(SUITE)" $(ARCH)

deb: $(BUILD)/CMakeCache.txt
	$(MAKE) all TARGETS=packaged
	bash packaging/debian.sh $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-fuzz $(BUILD)-coverage $(BUILD)-clang $(BUILD)-cuda

#!/usr/bin/env bash
# Every parser of outside bytes survives a few seconds of fuzzing from its kept corpus (`make fuzz` runs longer).
set -euo pipefail
cd "$DILEMMA_SOURCE"
command -v clang-14 >/dev/null || { echo "SKIPPED: clang-14 is not installed (tools/deps clang)"; exit 77; }
mkdir -p build
cmake --preset fuzz >build/fuzz.log 2>&1 || { cat build/fuzz.log; exit 1; }
cmake --build --preset fuzz -j "$(nproc)" --target fuzz_targets >build/fuzz.log 2>&1 || { tail -n 50 build/fuzz.log; exit 1; }
tools/fuzz build/fuzz "${FUZZ_SEC:-5}"

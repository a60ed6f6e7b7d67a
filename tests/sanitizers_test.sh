#!/usr/bin/env bash
# Unit tests under AddressSanitizer and UndefinedBehaviorSanitizer, and the threaded ones under ThreadSanitizer; nodes, probe, profile,
# plan, quantize, run and serve as whole programs under the first two. Building with
# clang here also shows that the second compiler has no warning. Reuses build/asan and build/tsan.
set -euo pipefail
cd "$DILEMMA_SOURCE"
command -v clang-14 >/dev/null || { echo "SKIPPED: clang-14 is not installed (tools/deps clang)"; exit 77; }
mkdir -p build
for preset in asan tsan; do
  cmake --preset $preset >build/$preset.log 2>&1 || { cat build/$preset.log; exit 1; }
  targets=(); [ $preset = asan ] || targets=(--target threaded_tests)   # the others would be built and not run
  cmake --build --preset $preset -j "$(nproc)" "${targets[@]}" >build/$preset.log 2>&1 || { tail -n 50 build/$preset.log; exit 1; }
  ctest --preset $preset --no-tests=error
done
[ ! -x "${DILEMMA_PYTHON:-}" ] || DILEMMA=$PWD/build/asan/dilemma "$DILEMMA_PYTHON" tests/up_test.py || [ $? = 77 ]

#!/usr/bin/env bash
# The house stays in order: includes point only down, headers compile alone, nobody but the engine sees ggml.
set -euo pipefail
cd "$DILEMMA_SOURCE"
tools/check-layers

#!/usr/bin/env bash
# Decoding and prefill against llama.cpp's llama-bench: the same file, ggml and threads, runs alternating, so that a busy machine
# is busy for both. Prints the median tokens a second of each, and the median and quartiles of the ratio of neighbouring runs.
#   bench/engine.sh [MODEL.gguf]      TYPES="as-is Q4_0 IQ4_NL Q8_0" THREADS="1 2" REPEATS=7 PROMPT=512 DECODE=64
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
deps=${DILEMMA_DEPS:-$root/build/deps}
dilemma=${DILEMMA:-$root/build/release/dilemma}
llama=${DILEMMA_LLAMA_BIN:-$deps/llama-bin}
model=${1:-$deps/models/SmolLM2-135M-Instruct.Q4_1.gguf}
types=${TYPES:-as-is Q4_0 IQ4_NL Q8_0}
threads=${THREADS:-1 2}
repeats=${REPEATS:-7} prompt=${PROMPT:-512} decode=${DECODE:-64}
[ -x "$llama/llama-bench" ] || { echo "SKIPPED: no llama-bench in $llama (DILEMMA_LLAMA_BIN)"; exit 77; }
work=$(mktemp -d "$root/build/bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

# tokens a second: "prefill decode"
ours() { "$dilemma" bench "$1" -t "$2" -r 1 -p "$prompt" -n "$decode" --json --quiet |
  awk -F: '/"median"/ {gsub(/[ ,]/, "", $2); print $2}' | paste -sd' '; }
theirs() { "$llama/llama-bench" -m "$1" -t "$2" -r 1 -p "$prompt" -n "$decode" -o csv 2>/dev/null |
  awk -F'","' 'NR > 1 {print $(NF - 1)}' | paste -sd' '; } # avg_ts, before stddev_ts
quantile() { sort -g | awk -v p="$1" '{x[NR] = $1} END {a = p * (NR - 1) + 1; i = int(a); print x[i] + (a - i) * (x[i < NR ? i + 1 : i] - x[i])}'; }

printf '%-8s %-8s %-8s %12s %12s %8s %s\n' type threads what dilemma llama.cpp ratio '(quartiles)'
for type in $types; do
  file=$model
  if [ "$type" != as-is ]; then
    file=$work/$type.gguf
    "$llama/llama-quantize" --allow-requantize --token-embedding-type "${EMBEDDING:-q8_0}" "$model" "$file" "$type" 2 >/dev/null 2>&1
  fi
  for t in $threads; do
    : >"$work/runs"
    for ((r = 0; r < repeats; r++)); do
      if ((r % 2)); then a=$(ours "$file" "$t"); b=$(theirs "$file" "$t"); else b=$(theirs "$file" "$t"); a=$(ours "$file" "$t"); fi
      echo "$a $b" >>"$work/runs"
    done
    for what in prefill decode; do
      c=$([ $what = prefill ] && echo 1 || echo 2)
      ratios=$(awk -v c=$c '{print $c / $(c + 2)}' "$work/runs")
      printf '%-8s %-8s %-8s %12.1f %12.1f %8.3f (%.3f to %.3f)\n' "$type" "$t" $what "$(awk -v c=$c '{print $c}' "$work/runs" | quantile .5)" \
        "$(awk -v c=$c '{print $(c + 2)}' "$work/runs" | quantile .5)" "$(quantile .5 <<<"$ratios")" "$(quantile .25 <<<"$ratios")" "$(quantile .75 <<<"$ratios")"
    done
  done
done

#!/usr/bin/env bash
# The paper's experiment on true weights: fine-tune, plan, quantize, distil, loss on SQuAD before and after.
#
# usage: experiments/paper/whole.sh MODEL [OUT_DIR]     MODEL: the folder of OPT-350M as its hub has it (config.json, pytorch_model.bin, tokenizer), or a GGUF
# SQUAD_TRAIN, SQUAD_DEV: SQuAD v1.1's files (required). RATIO (0.1275), FINETUNE_MINUTES (60), DISTILL_MINUTES (30), QUESTIONS (1000), TOKENS (1024, to
# measure damage on), CONTEXT (1024), MEMORY (1: times the servers' memory). Each step's file is kept, and a step whose file is there is not repeated.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dilemma=${DILEMMA:-$here/../../build/release/dilemma}
[ $# -ge 1 ] || { sed -n '4,7s/^# //p' "$0"; exit 2; }
model=$1 out=${2:-build/experiments}
: "${SQUAD_TRAIN:?is SQuAD train-v1.1.json}" "${SQUAD_DEV:?is SQuAD dev-v1.1.json}"
mkdir -p "$out"

step() { # step FILE COMMAND...: FILE is what the command writes
    local file=$1; shift
    if [ -e "$file" ]; then echo "== $(basename "$file") is there"; return; fi
    echo "== $(basename "$file")"
    "$@"
}

step "$out/model.gguf" "$dilemma" import "$model" --type f16 -o "$out/model.gguf"
step "$out/teacher.gguf" "$dilemma" finetune "$out/model.gguf" --data "$SQUAD_TRAIN" --minutes "${FINETUNE_MINUTES:-60}" -o "$out/teacher.gguf"
step "$out/cluster.json" python3 "$here/cluster.py" "$out/cluster.json" "${MEMORY:-1}"
step "$out/profile.json" "$dilemma" profile "$out/teacher.gguf" --cluster "$out/cluster.json" --time-here --data "$SQUAD_TRAIN" --tokens "${TOKENS:-1024}" \
    --context "${CONTEXT:-1024}" -o "$out/profile.json"
step "$out/plan.json" "$dilemma" plan --profile "$out/profile.json" --cluster "$out/cluster.json" --max-ratio "${RATIO:-0.1275}" -o "$out/plan.json" --svg "$out/plan.svg"
step "$out/student.gguf" "$dilemma" quantize "$out/teacher.gguf" --plan "$out/plan.json" --method layerwise --imatrix-data "$SQUAD_TRAIN" -o "$out/student.gguf"
step "$out/distilled.gguf" "$dilemma" distill --teacher "$out/teacher.gguf" --student "$out/student.gguf" --data "$SQUAD_TRAIN" \
    --minutes "${DISTILL_MINUTES:-30}" -o "$out/distilled.gguf"
for m in teacher student distilled; do
    step "$out/$m.json" sh -c '"$1" eval "$2/$3.gguf" --data "$4" --limit "$5" --json > "$2/$3.part" && mv "$2/$3.part" "$2/$3.json"' eval "$dilemma" "$out" "$m" "$SQUAD_DEV" \
        "${QUESTIONS:-1000}"
done
python3 "$here/report.py" "$out"

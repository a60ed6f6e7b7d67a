#!/bin/bash
# Times of the exact solvers on the same bare problems, one after the other, and their medians.
#
#   bench/planner.sh [--limit SEC] [--solvers "path milp cbc-flow cbc-product"] problem.json ...
#
# Prints rows "instance solver seconds objective bound status", then a median a solver. A run that does not end counts as its limit.
# DILEMMA: the program (build/release/dilemma). PYTHON: an interpreter with PuLP for the cbc rows, which are left out without it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dilemma=${DILEMMA:-$here/../build/release/dilemma}
python=${PYTHON:-python3}
limit=60
solvers="path milp cbc-flow cbc-product"
while [[ ${1:-} == --* ]]; do
  case $1 in
    --limit) limit=$2; shift 2 ;;
    --solvers) solvers=$2; shift 2 ;;
    *) echo "planner.sh: unknown option $1" >&2; exit 2 ;;
  esac
done
[[ $# -gt 0 ]] || { echo "usage: planner.sh [--limit SEC] [--solvers LIST] problem.json ..." >&2; exit 2; }
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

ours() { # solver problem
  local out
  out=$("$dilemma" plan --problem "$2" --solver "$1" --time-limit "$limit" --quiet --json 2>/dev/null) || out="{}"
  "$python" -c '
import json, sys
p = json.loads(sys.argv[1])
print(sys.argv[2], sys.argv[3], "%.3f" % p.get("solve_sec", float(sys.argv[4])), "%.8f" % p.get("objective_sec", float("nan")),
      "%.8f" % p.get("bound_sec", float("nan")), p.get("status", "none"))' "$out" "$(basename "$2" .json)" "$1" "$limit"
}

for solver in $solvers; do
  for problem in "$@"; do
    case $solver in
      cbc-*)
        "$python" -c 'import pulp' 2>/dev/null || { echo "planner.sh: $python has no PuLP, $solver left out" >&2; break; }
        "$python" "$here/planner_cbc.py" $([[ $solver == cbc-product ]] && echo --product) --limit "$limit" "$problem" ;;
      *) ours "$solver" "$problem" ;;
    esac
  done
done | tee "$rows"
"$python" - "$rows" "$limit" <<'PY'
import statistics, sys
by = {}
for line in open(sys.argv[1]):
    _, solver, sec, _, _, status = line.split()
    by.setdefault(solver, []).append((min(float(sec), float(sys.argv[2])) if status == "optimal" else float(sys.argv[2]), status))
for solver, v in by.items():
    print(f"median {solver} {statistics.median(t for t, _ in v):.3f} s, {sum(s == 'optimal' for _, s in v)} of {len(v)} proved")
PY

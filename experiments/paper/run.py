#!/usr/bin/env python3
"""One sensitivity study of docs/PAPER.md: a CSV and an SVG.

    experiments/paper/run.py STUDY [-o FOLDER] [--limit SEC]      STUDY: communication, cpu, storage, servers, quality

Every point is a plan of `dilemma plan` (DILEMMA, or build/release/dilemma) for OPT-350M's shape (shape.py), proved to the gap that the CSV
states, beside two published rules of placement with the
best levels for them, and one precision for all layers. An answer has 128 tokens in and 64 out."""
import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile

import shape

BUDGET = 0.35  # weight damage; at the middle of every study the file is 12.7 % of fp32
STUDIES = {  # what is varied, its unit on the axis, logarithmic, the values; shape.make's argument or the budget
    "communication": ("speed of the links, Mbit/s", True, [5, 10, 20, 50, 100, 200, 500, 1000], lambda v: ({"bandwidth": v * 1e6 / 8}, BUDGET)),
    "cpu": ("speed of the servers, times", True, [0.25, 0.5, 0.75, 1, 1.5, 2, 4], lambda v: ({"speed": v}, BUDGET)),
    "storage": ("storage of the servers, times", False, [0.9, 0.95, 1, 1.1, 1.25, 1.5, 2, 3], lambda v: ({"storage": v}, BUDGET)),
    "servers": ("servers", False, [3, 4, 5, 6, 7, 8], lambda v: ({"n_nodes": v}, BUDGET)),
    "quality": ("damage allowed (weight measure)", True, [0.15, 0.2, 0.25, 0.3, 0.35, 0.5, 0.7, 1.0], lambda v: ({}, v)),
}
SOLVERS = {"path": "DILEMMA", "baseline:edgeshard+levels": "EdgeShard, best levels", "baseline:memory-proportional+levels": "by memory, best levels", "baseline:uniform": "one precision"}
COLOURS = {"path": "#0072b2", "baseline:edgeshard+levels": "#d55e00", "baseline:memory-proportional+levels": "#cc79a7", "baseline:uniform": "#009e73"}


def solve(folder, budget, limit):
    program = os.environ.get("DILEMMA", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "release", "dilemma"))
    run = subprocess.run([program, "plan", "--profile", folder + "/profile.json", "--cluster", folder + "/cluster.json", "--measure", "weight", "--max-kl", str(budget),
                          "--tokens-in", "128", "--tokens-out", "64", "--time-limit", str(limit), "--compare", ",".join(SOLVERS), "--json"],
                         capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"dilemma plan: {run.stderr.strip()}")
    return {r["solver"]: r for r in json.loads(run.stdout)["rows"]}


def points(study, limit):
    """After every value all rows so far."""
    _, _, values, what = STUDIES[study]
    rows = []
    for v in values:
        with tempfile.TemporaryDirectory() as folder:
            arguments, budget = what(v)
            shape.make(folder, **arguments)
            for solver, r in solve(folder, budget, limit).items():
                ok = r["feasible"]
                gap = 1 - r["bound_sec"] / r["total_sec"] if ok and r.get("bound_sec") else math.nan
                rows.append({"value": v, "solver": solver, "answer_sec": r["total_sec"] if ok else math.nan, "ratio_to_fp32": r["ratio_to_fp32"] if ok else math.nan,
                             "damage": r["damage"] if ok else math.nan, "gap": gap if solver == "path" else math.nan, "why": r.get("why") or ""})
                print(*rows[-1].values(), flush=True)
        yield rows


def axis(values, log, pixels):
    f = math.log if log else float
    lo, hi = min(map(f, values)), max(map(f, values))
    return lambda v: pixels[0] + (f(v) - lo) / ((hi - lo) or 1) * (pixels[1] - pixels[0])


def panel(rows, key, title, scale, top, label, log):
    """One chart of `key` over the values: lines by solver, points without a plan left out."""
    shown = [r for r in rows if math.isfinite(r[key])]
    most = 1.05 * scale * max(r[key] for r in shown)
    x, y = axis([r["value"] for r in rows], log, (60, 580)), lambda v: top + 200 - 180 * v / most
    out = [f'<text x="60" y="{top + 8}" font-weight="bold">{title}</text>', f'<path d="M60 {top + 20}V{top + 200}H590" fill="none" stroke="#444"/>']
    for i in range(5):
        v = most * i / 4
        out.append(f'<text x="54" y="{y(v) + 4:.1f}" text-anchor="end">{v:.3g}</text><path d="M60 {y(v):.1f}H590" stroke="#ddd"/>')
    for v in dict.fromkeys(r["value"] for r in rows):
        out.append(f'<text x="{x(v):.1f}" y="{top + 216}" text-anchor="middle">{v:g}</text>')
    for solver, name in SOLVERS.items():
        at = [(x(r["value"]), y(scale * r[key])) for r in shown if r["solver"] == solver]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        out.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[solver]}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{COLOURS[solver]}"><title>{name}</title></circle>' for a, b in at]
    return out + [f'<text x="320" y="{top + 234}" text-anchor="middle">{label}</text>']


def write(study, rows, folder):
    label, log, _, _ = STUDIES[study]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, study + ".csv"), "w", newline="") as f:
        table = csv.DictWriter(f, rows[0].keys())
        table.writeheader()
        table.writerows({k: "" if isinstance(v, float) and math.isnan(v) else f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()} for r in rows)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 540" font-family="sans-serif" font-size="11">', '<rect width="600" height="540" fill="#fff"/>']
    for i, (solver, name) in enumerate(SOLVERS.items()):
        out.append(f'<rect x="{60 + 140 * i}" y="8" width="12" height="12" fill="{COLOURS[solver]}"/><text x="{78 + 140 * i}" y="18">{name}</text>')
    out += panel(rows, "answer_sec", "seconds of an answer", 1, 40, label, log)
    out += panel(rows, "ratio_to_fp32", "size, % of fp32", 100, 295, label, log)
    with open(os.path.join(folder, study + ".svg"), "w") as f:
        f.write("\n".join(out) + "\n</svg>\n")


def main():
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("study", choices=STUDIES)
    a.add_argument("-o", "--out", default="build/experiments")
    a.add_argument("--limit", type=float, default=30)
    o = a.parse_args()
    for rows in points(o.study, o.limit):
        if any(math.isfinite(r["answer_sec"]) for r in rows):
            write(o.study, rows, o.out)


if __name__ == "__main__":
    main()

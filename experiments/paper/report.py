"""Prints whole.sh's figures beside the paper's, and writes them as whole.csv. usage: report.py FOLDER"""
import json
import os
import sys

folder = sys.argv[1]


def read(name):
    with open(os.path.join(folder, name)) as f:
        return json.load(f)


plan, lines = read("plan.json"), ["model,size_of_fp32,loss,em,f1"]
for name in ("teacher", "student", "distilled"):
    r = read(name + ".json")
    ratio = 0.5 if name == "teacher" else plan["ratio_to_fp32"]
    lines.append(",".join(str(v) for v in (name, round(ratio, 5), r.get("loss"), r.get("em"), r.get("f1"))))
lines.append("paper: fine-tuned,1,0.0591,,")
lines.append("paper: quantized and distilled,0.1275,0.0605,,")
print("\n".join(lines))
print(f"predicted: {plan['total_sec']:.3f} s an answer of {plan['tokens_out']} tokens, proved at least {plan['bound_sec']:.3f} s")
with open(os.path.join(folder, "whole.csv"), "w") as f:
    f.write("\n".join(lines) + "\n")

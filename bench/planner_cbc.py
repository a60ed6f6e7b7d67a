"""A bare problem.json through PuLP and CBC: the flow formulation, or the textbook one with products made linear.

    planner_cbc.py [--product] [--limit SEC] problem.json ...      prints "instance solver seconds objective bound status"
"""
import argparse
import json
import os
import re
import tempfile
import time

import pulp


def build(p, product):
    L, S, Q = p["n_layers"], p["n_nodes"], p["n_levels"]
    link = {(i, j): t for i, j, t in p["links"]} if "links" in p else {
        (i, j): p["hop_sec"][i][j] for i in range(S) for j in range(S) if i != j}
    link.update({(s, s): 0.0 for s in range(S)})
    m = pulp.LpProblem("plan", pulp.LpMinimize)
    x = [[[m_var(f"x_{l}_{s}_{q}", True) for q in range(Q)] for s in range(S)] for l in range(L)]
    on = [[pulp.lpSum(x[l][s]) for s in range(S)] for l in range(L)]
    f = [{e: m_var(f"f_{l}_{e[0]}_{e[1]}", False) for e in link} for l in range(L - 1)]
    zero = [0.0] * S
    m += (pulp.lpSum(p["layer_sec"][l][s][q] * x[l][s][q] for l in range(L) for s in range(S) for q in range(Q))
          + pulp.lpSum(link[e] * v for fl in f for e, v in fl.items())
          + pulp.lpSum(p.get("source_sec", zero)[s] * on[0][s] + p.get("sink_sec", zero)[s] * on[L - 1][s] for s in range(S)))
    for l in range(L):
        m += pulp.lpSum(on[l]) == 1
    for l in range(L - 1):
        if product:
            for i in range(S):
                for j in range(S):
                    m += (f[l][i, j] if (i, j) in link else 0) >= on[l][i] + on[l + 1][j] - 1
        else:
            for s in range(S):
                m += pulp.lpSum(v for (i, _), v in f[l].items() if i == s) == on[l][s]
                m += pulp.lpSum(v for (_, j), v in f[l].items() if j == s) == on[l + 1][s]
    unit = sum(max(b) for b in p["layer_bytes"]) / L  # bytes near 1 for the solver's tolerances
    for s in range(S):
        m += pulp.lpSum(p["layer_bytes"][l][q] / unit * x[l][s][q] for l in range(L) for q in range(Q)) <= p["store_bytes"][s] / unit
    m += pulp.lpSum(p["damage"][l][q] * x[l][s][q] for l in range(L) for s in range(S) for q in range(Q)) <= p["damage_max"]
    return m


def m_var(name, binary):
    return pulp.LpVariable(name, cat="Binary") if binary else pulp.LpVariable(name, 0, 1)


def run(path, product, limit):
    with open(path) as file:
        m = build(json.load(file), product)
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        start = time.monotonic()
        m.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=limit, threads=1, gapRel=1e-4, logPath=log.name))
        seconds = time.monotonic() - start
        bound = re.findall(r"Lower bound:\s+(\S+)", open(log.name).read())
    found = m.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    value = pulp.value(m.objective) if found else float("nan")
    proved = m.sol_status == pulp.LpSolutionOptimal and not bound
    print(os.path.basename(path).removesuffix(".json"), "cbc-product" if product else "cbc-flow", f"{seconds:.3f}", f"{value:.8f}",
          bound[-1] if bound else f"{value:.8f}", "optimal" if proved else "feasible" if found else "none", flush=True)


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("--product", action="store_true")
    a.add_argument("--limit", type=float, default=60)
    a.add_argument("problem", nargs="+")
    a = a.parse_args()
    for problem in a.problem:
        run(problem, a.product, a.limit)

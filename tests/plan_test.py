"""`dilemma plan` on small made profiles and clusters, against enumeration of every plan by figures written from docs/FORMATS.md alone.

Checked: the two solves without a quality budget, the budgets and the texts of problems without a plan (which budget is short, by how
much), entry, rate, chunks, --objective throughput, baseline:best-single, --svg, --lp and bad input.
"""
import ctypes
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

DILEMMA = os.environ["DILEMMA"]
QUICK = "DILEMMA_TEST_QUICK" in os.environ
TMP = Path(tempfile.mkdtemp(prefix="dilemma-plan-"))
failures = 0


def check(ok, *what):
    global failures
    if not ok:
        failures += 1
        print("FAILED:", *what)


# --- made files ----------------------------------------------------------------------------------------------------------------


def made(seed):
    """A profile of an embedding, two blocks and a tied head at up to three levels, and a cluster of three nodes."""
    r = random.Random(seed)
    nodes = ["alpha", "beta", "gamma"]
    speed = [r.uniform(1e9, 4e9) for _ in nodes]

    def level(name, size, kl, shared=0):
        t = [size / s * r.uniform(.8, 1.3) for s in speed]
        d = {"name": name, "types": {"w": name}, "bytes": size, "damage": {"kl": kl, "weight": 2 * kl}, "decode_sec": t,
             "prefill_sec": [x * r.uniform(.2, .5) for x in t]}
        if shared:
            d["shared_bytes"] = shared
        return d

    names = ["Q8_0", "Q4_1", "MXFP4"]
    size = {"Q8_0": 1000, "Q4_1": 600, "MXFP4": 500}
    kl = {n: k * r.uniform(.5, 1.5) for n, k in zip(names, (1e-4, 1e-2, 3e-2))}
    k = r.randint(2000, 4000)
    embed = [level(n, size[n] * k, kl[n]) for n in names]
    head = [level(n, size[n] * k + 64, kl[n], size[n] * k) for n in names]
    blocks = []
    for i in range(2):
        b = r.randint(2000, 6000)
        blocks.append({"name": "blk.%d" % i, "kv_bytes": 300000, "buffer_bytes": 100000 + 50000 * i,
                       "levels": [level(n, size[n] * b, kl[n] * r.uniform(.5, 2)) for n in names[:r.randint(2, 3)]],
                       "decode_sec_per_cached": [r.uniform(0, 1e-6) for _ in nodes]})
    layers = [{"name": "embedding", "kv_bytes": 0, "buffer_bytes": 20000, "levels": embed}, *blocks,
              {"name": "head", "kv_bytes": 0, "buffer_bytes": 400000, "levels": head}]
    biggest = sum(max(q["bytes"] for q in l["levels"]) for l in layers)
    params = int(biggest * .8)
    profile = {"version": 1, "model": {"path": "made.gguf", "hash": "ab" * 32, "arch": "llama", "n_blocks": 2, "n_vocab": 100,
                                       "hidden_bytes": 2048, "n_params": params, "tied_head": True},
               "data": {"path": "none", "tokens": 1}, "context": 512, "sequences": 1, "batch": 32, "n_past": 64, "nodes": nodes,
               "layers": layers, "baseline": {"loss": 3.0, "tokens": 10}, "kl_to_loss": {"slope": .8}}
    cluster = {"version": 1, "entry": nodes[r.randrange(3)],
               "nodes": [{"name": n, "address": "127.0.0.1:1", "memory_bytes": int(biggest * r.uniform(.25, .7)), "threads": 1} for n in nodes],
               "links": [{"from": a, "to": b, "rtt_sec": .002, "latency_sec": r.uniform(1e-4, 3e-3), "bytes_per_sec": r.uniform(1e6, 5e7)}
                         for a in nodes for b in nodes if a != b and r.random() < .9]}
    return profile, cluster


# --- the figures, from the formats ------------------------------------------------------------------------------------------------


class Case:
    def __init__(self, profile, cluster, n_in=128, n_out=128, context=None, entry=None, rate=0, load=.9):
        self.p, self.c, self.n_in, self.n_out, self.rate, self.load = profile, cluster, n_in, n_out, rate, load
        self.context = context or profile["context"]
        self.entry = entry or cluster["entry"]
        self.memory = {n["name"]: n["memory_bytes"] for n in cluster["nodes"]}
        self.link = {(k["from"], k["to"]): k for k in cluster["links"]}
        self.chunks = math.ceil(n_in / profile["batch"])

    def plans(self):
        ls = self.p["layers"]
        for nodes in itertools.product(self.p["nodes"], repeat=len(ls)):
            for levels in itertools.product(*[range(len(l["levels"])) for l in ls[:-1]]):
                yield nodes, levels + (levels[0],)

    def figures(self, nodes, levels):
        """None where a link is missing, else seconds, damage, file bytes, missing bytes over all nodes, highest load at one request a second."""
        p, ls, last = self.p, self.p["layers"], len(self.p["layers"]) - 1
        at = [p["nodes"].index(n) for n in nodes]
        q = [l["levels"][i] for l, i in zip(ls, levels)]
        cached = self.n_in + self.n_out / 2 - p["n_past"]
        decode = [max(0, x["decode_sec"][s] + (l["decode_sec_per_cached"][s] * cached if "decode_sec_per_cached" in l else 0))
                  for x, l, s in zip(q, ls, at)]
        b, hidden = self.n_in / self.chunks, p["model"]["hidden_bytes"]
        path = [self.entry, *nodes, self.entry]
        send = [4] + [hidden] * last + [4]
        token = sum(decode)
        first = decode[last] + sum(b * x["prefill_sec"][s] for x, s in zip(q[:last], at))
        busy = {n: 0.0 for n in p["nodes"]}
        link = {}
        for l in range(last + 1):
            busy[nodes[l]] += b * q[l]["prefill_sec"][at[l]] if l < last else 0
        for i, (u, v) in enumerate(zip(path, path[1:])):
            if u == v:
                continue
            k = self.link.get((u, v))
            if not k:
                return None
            one_token = i >= last  # the head sees one token of the prompt, and sends one
            token += k["latency_sec"] + send[i] / k["bytes_per_sec"]
            first += k["latency_sec"] + send[i] * (1 if one_token else b) / k["bytes_per_sec"]
            if 0 < i < last:
                link[u, v] = link.get((u, v), 0) + b * hidden / k["bytes_per_sec"]
        sec = first + (self.chunks - 1) * max([*busy.values(), *link.values()]) + (self.n_out - 1) * token
        shared = q[last]["shared_bytes"]
        missing = 0
        for n in set(nodes):
            here = [l for l in range(last + 1) if nodes[l] == n]
            need = sum(q[l]["bytes"] + math.ceil(ls[l]["kv_bytes"] * self.context / p["context"]) for l in here)
            need += max(ls[l]["buffer_bytes"] for l in here) - (shared if nodes[0] == nodes[last] == n else 0)
            missing += max(0, need - self.memory[n])
        damage = sum(x["damage"]["kl"] for x in q[:last])
        return sec, damage, sum(x["bytes"] for x in q) - shared, missing, self.highest_load(nodes, q, at, decode)

    def seconds_of_nodes_and_links(self, nodes, q, at, decode):
        last, hidden = len(nodes) - 1, self.p["model"]["hidden_bytes"]
        work, link, out, into = {}, {}, {}, {}
        for l, n in enumerate(nodes):
            work[n] = work.get(n, 0) + self.n_out * decode[l] + (self.n_in * q[l]["prefill_sec"][at[l]] if l < last else 0)
        for l in range(last):
            u, v = nodes[l], nodes[l + 1]
            if u == v:
                continue
            sent = hidden * (self.n_out if l + 1 == last else self.n_in + self.n_out)
            for d, key in ((link, (u, v)), (out, u), (into, v)):
                d[key] = d.get(key, 0) + sent
        fastest_out = lambda u: max(k["bytes_per_sec"] for k in self.c["links"] if k["from"] == u)
        fastest_in = lambda v: max(k["bytes_per_sec"] for k in self.c["links"] if k["to"] == v)
        return [*work.values(), *(s / self.link[k]["bytes_per_sec"] for k, s in link.items()), *(s / fastest_out(u) for u, s in out.items()),
                *(s / fastest_in(v) for v, s in into.items())]

    def highest_load(self, nodes, q, at, decode):
        return max(self.seconds_of_nodes_and_links(nodes, q, at, decode))

    def all(self):
        for nodes, levels in self.plans():
            f = self.figures(nodes, levels)
            if f:
                yield nodes, levels, f

    def best(self, all_plans, ratio=math.inf, kl=math.inf, slack=.1):
        """Least seconds (two solves where there is no quality budget), and the damage budget; None: no plan."""
        limit = ratio * 4 * self.p["model"]["n_params"] * (1 + 1e-9)
        fit = [f for _, _, f in all_plans if f[2] <= limit and f[3] <= 0 and self.rate * f[4] <= self.load * (1 + 1e-9)]
        if kl == math.inf and fit:
            kl = (1 + slack) * min(f[1] for f in fit)
        fit = [f for f in fit if f[1] <= kl * (1 + 1e-9)]
        return (min(f[0] for f in fit), kl) if fit else None


# --- the program --------------------------------------------------------------------------------------------------------------------


def write(profile, cluster):
    (TMP / "profile.json").write_text(json.dumps(profile))
    (TMP / "cluster.json").write_text(json.dumps(cluster))


def plan(*args):
    out = TMP / "plan.json"
    out.unlink(missing_ok=True)
    run = subprocess.run([DILEMMA, "plan", "--profile", TMP / "profile.json", "--cluster", TMP / "cluster.json", "-o", out, "--gap", "1e-7", *map(str, args)],
                         capture_output=True, text=True, timeout=120)
    return run, json.loads(out.read_text()) if run.returncode == 0 else None


def figures_of(case, doc):
    nodes = tuple(l["node"] for l in doc["layers"])
    levels = tuple([q["name"] for q in case.p["layers"][i]["levels"]].index(l["level"]) for i, l in enumerate(doc["layers"]))
    return case.figures(nodes, levels)


def near(a, b, tolerance=1e-6):
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) + 1e-12


def compare(seed, what, case, all_plans, args, **budgets):
    want = case.best(all_plans, **budgets)
    run, doc = plan(*args)
    if want is None:
        check(run.returncode == 9, seed, what, "no plan exists, but the exit status is", run.returncode, run.stderr)
        return None
    check(run.returncode == 0, seed, what, run.stderr)
    if not doc:
        return None
    f = figures_of(case, doc)
    check(f is not None and f[3] <= 0 and f[1] <= want[1] * (1 + 1e-8), seed, what, "a plan beyond the budgets", f, want)
    check(near(f[0], doc["total_sec"]) and near(f[1], doc["predicted_damage"]), seed, what, "says", doc["total_sec"], "and takes", f[0])
    check(near(doc["total_sec"], want[0], 2e-6), seed, what, "takes", doc["total_sec"], "but the best takes", want[0])
    check(doc["bound_sec"] <= want[0] * (1 + 1e-9), seed, what, "claims the bound", doc["bound_sec"], "above", want[0])
    return doc


def plans_are_the_best_of_all():
    feasible = 0
    for seed in range(3 if QUICK else 14):
        profile, cluster = made(seed)
        write(profile, cluster)
        case = Case(profile, cluster)
        every = list(case.all())
        sizes = sorted(f[2] for _, _, f in every)
        ratio = sizes[len(sizes) // 3] / 4 / profile["model"]["n_params"]
        doc = compare(seed, "size", case, every, ["--max-ratio", repr(ratio)], ratio=ratio)
        feasible += doc is not None
        compare(seed, "nothing", case, every, [])
        compare(seed, "slack", case, every, ["--slack", 1.5], slack=1.5)
        kl = sorted(f[1] for _, _, f in every)[len(every) // 2]
        compare(seed, "kl", case, every, ["--max-kl", repr(kl)], kl=kl)
        compare(seed, "loss", case, every, ["--max-loss-increase", repr(100 * kl * .8 / 3)], kl=kl)
        other = Case(profile, cluster, n_in=200, n_out=3, context=300, entry="beta")
        compare(seed, "long prompt", other, list(other.all()), ["--tokens-in", 200, "--tokens-out", 3, "--context", 300, "--entry", "beta"])
        loads = sorted(f[4] for _, _, f in every if f[3] <= 0)
        if loads:
            loaded = Case(profile, cluster, rate=.9 / loads[len(loads) // 3])
            compare(seed, "rate", loaded, every, ["--rate", repr(loaded.rate)])
    check(feasible > 0, "no instance has a plan: the family tests nothing")


def bytes_of(text):
    n, unit = re.fullmatch(r"([\d.]+) (B|kB|MB|GB)", text).groups()
    return float(n) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def texts_name_what_is_short():
    profile, cluster = made(0)
    for n in cluster["nodes"]:
        n["memory_bytes"] = 20000000
    cluster["links"] = [{"from": a, "to": b, "rtt_sec": .002, "latency_sec": .001, "bytes_per_sec": 1e7} for a in profile["nodes"] for b in profile["nodes"] if a != b]
    write(profile, cluster)
    case = Case(profile, cluster)
    every = list(case.all())
    least = min(f[2] for _, _, f in every)
    params = profile["model"]["n_params"]
    run, _ = plan("--max-ratio", least / 4 / params * .9)
    m = re.search(r"size: the smallest file possible takes ([\d.]+ \w+), the limit is ([\d.]+ \w+) \(([\d.]+ \w+) short\)", run.stderr)
    check(run.returncode == 9 and m, "size:", run.stderr)
    if m:
        check(near(bytes_of(m[1]), least, .02) and near(bytes_of(m[2]), .9 * least, .02) and near(bytes_of(m[3]), .1 * least, .06), "size:", m[0], least)
    damage = min(f[1] for _, _, f in every if f[3] <= 0)
    run, _ = plan("--max-kl", damage * .5)
    m = re.search(r"quality: the least damage possible is ([\d.e-]+), the budget ([\d.e-]+)", run.stderr)
    check(run.returncode == 9 and m, "quality:", run.stderr)
    if m:
        check(near(float(m[1]), damage, 1e-3) and near(float(m[2]), damage * .5, 1e-3), "quality:", m[0], damage)
    load = min(f[4] for _, _, f in every if f[3] <= 0)
    run, _ = plan("--rate", 2 * .9 / load)
    m = re.search(r"rate: the busiest node or link would be ([\d.]+) loaded, the limit is 0.9 \(a rate of ([\d.]+) of the asked one fits\)", run.stderr)
    check(run.returncode == 9 and m, "rate:", run.stderr)
    if m:
        check(near(float(m[1]), 1.8, 1e-2) and near(float(m[2]), .5, 1e-2), "rate:", m[0])
    for n in cluster["nodes"]:
        n["memory_bytes"] = 1500000
    write(profile, cluster)
    short = min(f[3] for _, _, f in Case(profile, cluster).all())
    run, _ = plan()
    m = re.search(r"storage: the nodes offer ([\d.]+ \w+) and ([\d.]+ \w+) more is needed", run.stderr)
    check(run.returncode == 9 and m, "storage:", run.stderr)
    if m:
        check(near(bytes_of(m[1]), 4.5e6, .02) and near(bytes_of(m[2]), short, .03), "storage:", m[0], short)
    cluster["links"] = []
    cluster["nodes"] = cluster["nodes"][:2]
    cluster["entry"] = "alpha"
    profile["nodes"] = ["beta"]
    for l in profile["layers"]:
        for q in l["levels"]:
            q["decode_sec"], q["prefill_sec"] = q["decode_sec"][1:2], q["prefill_sec"][1:2]
        if "decode_sec_per_cached" in l:
            l["decode_sec_per_cached"] = l["decode_sec_per_cached"][1:2]
    write(profile, cluster)
    run, _ = plan()
    check(run.returncode == 9 and "links" in run.stderr, "links:", run.stderr)


def best_single_is_the_fastest_node():
    profile, cluster = made(3)
    for n in cluster["nodes"]:
        n["memory_bytes"] = 40000000
    write(profile, cluster)
    case = Case(profile, cluster)
    every = list(case.all())
    budget = 1.1 * min(f[1] for _, _, f in every if f[3] <= 0)
    want = min(f[0] for n, _, f in every if len(set(n)) == 1 and f[3] <= 0 and f[1] <= budget)
    run, doc = plan("--solver", "baseline:best-single")
    check(doc and len(doc["stages"]) == 1 and near(doc["total_sec"], want), "best-single:", run.stderr, doc and doc["total_sec"], want)
    for n in cluster["nodes"]:
        n["memory_bytes"] = 6000000
    write(profile, cluster)
    run, _ = plan("--solver", "baseline:best-single")
    check(run.returncode == 9 and ("single" in run.stderr or "storage" in run.stderr), "best-single without room:", run.stderr)


def pictures_and_exports():
    profile, cluster = made(5)
    for n in cluster["nodes"]:
        n["memory_bytes"] = 12000000
    write(profile, cluster)
    run, doc = plan("--svg", TMP / "plan.svg", "--lp", TMP / "plan.lp")
    check(run.returncode == 0, run.stderr)
    if not doc:
        return
    root = ET.parse(TMP / "plan.svg").getroot()
    ns = "{http://www.w3.org/2000/svg}"
    texts = [t.text or "" for t in root.iter(ns + "text")]
    check(root.tag == ns + "svg", "not a picture")
    check(all(any(n in t for t in texts) for n in profile["nodes"]), "a node is not in the picture:", texts)
    cells = [c for c in root.iter(ns + "circle") if c.get("class") == "c" and c.find(ns + "title") is not None]
    check(len(cells) == len(profile["layers"]), "layers in the picture:", len(cells))
    check(all(l["level"] in c.find(ns + "title").text for l, c in zip(doc["layers"], cells)), "the levels of the picture are not the plan's")
    lp = (TMP / "plan.lp").read_text()
    for word in ("min", "st", "bin", "end"):
        check(re.search(r"(?m)^\s*%s" % word, lp), "the .lp has no section", word)
    run, _ = plan("--lp", TMP / "plan.mps")
    mps = (TMP / "plan.mps").read_text()
    check(run.returncode == 0 and all(re.search(r"(?m)^%s" % s, mps) for s in ("ROWS", "COLUMNS", "RHS", "ENDATA")), "the .mps lacks a section")
    run, _ = plan("--lp", TMP / "plan.txt")
    check(run.returncode != 0 and ".lp or .mps" in run.stderr, "an ending that is none:", run.stderr)
    library = sorted(Path(os.environ.get("DILEMMA_DEPS", "/nonexistent")).glob("highs/lib/libhighs.so*"))
    if not library:
        print("note: the exported models are not solved, there is no HiGHS library in DILEMMA_DEPS")
        return
    scale = 100 / sum(cheapest(Case(profile, cluster), l) for l in range(len(profile["layers"])))
    for name in ("plan.lp", "plan.mps"):
        value = solve_file(library[0], TMP / name) / scale
        check(near(value, doc["total_sec"], 1e-4), name, "has the optimum", value, "and the plan takes", doc["total_sec"])


def cheapest(case, l):
    """Seconds of a layer where it takes least, alone, with the way from or to the entry."""
    layer, last, least = case.p["layers"][l], len(case.p["layers"]) - 1, math.inf
    for s, n in enumerate(case.p["nodes"]):
        for q in layer["levels"]:
            more = layer.get("decode_sec_per_cached", [0] * 9)[s] * (case.n_in + case.n_out / 2 - case.p["n_past"])
            decode = max(0, q["decode_sec"][s] + more)
            sec = (case.n_out - 1) * decode + (decode if l == last else case.n_in / case.chunks * q["prefill_sec"][s])
            if l in (0, last) and n != case.entry:
                k = case.link.get((case.entry, n) if l == 0 else (n, case.entry))
                if not k:
                    continue
                times = case.n_out - 1 + case.n_in / case.chunks if l == 0 else case.n_out
                sec += case.n_out * k["latency_sec"] + times * 4 / k["bytes_per_sec"]
            least = min(least, sec)
    return least


def solve_file(library, path):
    h = ctypes.CDLL(str(library))
    h.Highs_create.restype = ctypes.c_void_p
    h.Highs_getObjectiveValue.restype = ctypes.c_double
    m = ctypes.c_void_p(h.Highs_create())
    h.Highs_setBoolOptionValue(m, b"output_flag", 0)
    check(h.Highs_readModel(m, str(path).encode()) == 0 and h.Highs_run(m) == 0, "HiGHS cannot read or solve", path.name)
    value = h.Highs_getObjectiveValue(m)
    h.Highs_destroy(m)
    return value


def bad_input():
    profile, cluster = made(1)
    for change, word in (
            (lambda p, c: p["layers"][1]["levels"][0]["decode_sec"].__setitem__(0, -1.0), "decode_sec"),
            (lambda p, c: p["layers"][1]["levels"][0]["prefill_sec"].__setitem__(0, 1e300), "prefill_sec"),
            (lambda p, c: p["layers"][1]["levels"][0].__setitem__("bytes", -5), "bytes"),
            (lambda p, c: c["links"][0].__setitem__("bytes_per_sec", 0), "bytes_per_sec"),
            (lambda p, c: c["links"][0].__setitem__("latency_sec", -1), "latency_sec"),
            (lambda p, c: c.__setitem__("entry", "nobody"), "nobody")):
        p, c = json.loads(json.dumps(profile)), json.loads(json.dumps(cluster))
        change(p, c)
        write(p, c)
        run, _ = plan()
        check(run.returncode not in (0, 9) and run.returncode > 0 and word in run.stderr, "bad", word, ":", run.returncode, run.stderr)
    (TMP / "profile.json").write_text(json.dumps(profile).replace('"decode_sec": [', '"decode_sec": [NaN, ', 1))
    (TMP / "cluster.json").write_text(json.dumps(cluster))
    run, _ = plan()
    check(run.returncode not in (0, 9) and run.returncode > 0, "NaN:", run.returncode, run.stderr)
    write(profile, cluster)
    run, _ = plan("--solver", "magic")
    check(run.returncode not in (0, 9) and "magic" in run.stderr and "path" in run.stderr, "unknown solver:", run.stderr)


plans_are_the_best_of_all()
texts_name_what_is_short()
best_single_is_the_fastest_node()
pictures_and_exports()
bad_input()
shutil.rmtree(TMP, ignore_errors=True)
print("%d failures" % failures)
sys.exit(1 if failures else 0)

#!/usr/bin/env python3
"""Writes a profile.json and a cluster.json of a real shape: SmolLM2-135M's 32 layers with a tied head, KV and buffers, on made-up nodes.

usage: measured_make.py DIR [--nodes 3] [--levels 12] [--room 1.2] [--seed 1] [--batch 128] [--kinds K] [--noise X]

--room: what the nodes offer together over what the model takes at 4.25 bits (1.0: storage binds as hard as it can).
--kinds: nodes of so many kinds only, all links equal; those of a kind differ by the noise (0.01: by up to one per cent) alone.
Bytes are those of ggml's types; seconds are bytes over a node's bandwidth, times a factor of the type's kernel there."""
import argparse
import json
import os
import random

BITS = {"Q8_0": 8.5, "Q5_1": 6.0, "Q5_0": 5.5, "Q4_1": 5.0, "IQ4_NL": 4.5, "Q4_0": 4.5, "MXFP4": 4.25}
LOW_BITS = {"Q3_K": 3.4375, "Q2_K": 2.625, "Q2_0": 2.25}
ROWS = {"attn": 576 * 576 * 2 + 576 * 192 * 2, "gate_up": 2 * 576 * 1536, "down": 576 * 1536}
TABLE = 49152 * 576


def mixes(n, rng):
    """n levels of a block, each a type for its three groups of tensors, from most bytes to least."""
    names = list(BITS) + list(LOW_BITS)
    bits = {**BITS, **LOW_BITS}
    uniform = [(t, t, t) for t in BITS]
    mixed = [(a, b, c) for a in names for b in names for c in names if not a == b == c]
    rng.shuffle(mixed)
    out = uniform[:n] + mixed[:max(0, n - len(uniform))]
    size = lambda m: sum(ROWS[g] * bits[t] / 8 for g, t in zip(ROWS, m))
    return sorted(((m, int(size(m)) + 2 * 576 * 4) for m in out), key=lambda x: -x[1]), bits


def make(nodes, levels, room, seed, batch, kinds=0, noise=0.0):
    rng = random.Random(seed)
    names = ["n%d" % i for i in range(nodes)]
    speed = [4e9 / (1 + 2.5 * rng.random() * (i > 0)) for i in range(nodes)]  # bytes a second
    blocks, bits = mixes(levels, rng)
    kernel = {(t, s): rng.uniform(.7, 1.1) * (2.5 if t in LOW_BITS else 1) for t in bits for s in range(nodes)}
    if kinds:
        speed = [speed[i % kinds] * (1 + noise * rng.uniform(-1, 1)) for i in range(nodes)]
        kernel = {(t, s): kernel[t, s % kinds] for t, s in kernel}
    layers = []

    def seconds(parts, s):
        return sum(b * kernel[t, s] for t, b in parts) / speed[s]

    def level(name, parts, size, kl, shared=0):
        d = {"name": name, "types": {"r%d" % i: t for i, (t, _) in enumerate(parts)}, "bytes": size,
             "damage": {"kl": kl, "weight": kl * 3},
             "decode_sec": [seconds(parts, s) + 2e-5 for s in range(nodes)],
             "prefill_sec": [seconds(parts, s) * .3 * (1 if kinds else rng.uniform(.8, 1.2)) + 1e-6 for s in range(nodes)]}
        if shared:
            d["shared_bytes"] = shared
        return d

    table = [(t, TABLE * b / 8) for t, b in BITS.items()]
    embed = [level(t, [(t, b * 1e-4)], int(b), 4 * 4 ** -bits[t] * rng.uniform(.8, 1.2)) for t, b in table]
    layers.append({"name": "embedding", "kv_bytes": 0, "buffer_bytes": 300000, "levels": embed})
    for l in range(30):
        sens = rng.uniform(.3, 2)
        group = {g: rng.uniform(.5, 1.5) * sens for g in ROWS}
        made = []
        for mix, size in blocks:
            parts = [(t, ROWS[g] * bits[t] / 8) for g, t in zip(ROWS, mix)]
            kl = sum(group[g] * 4 ** -bits[t] for g, t in zip(ROWS, mix)) * rng.uniform(.9, 1.1)
            made.append(level("-".join(mix), parts, size, kl))
        layers.append({"name": "blk.%d" % l, "kv_bytes": 786432, "buffer_bytes": 3114624, "levels": made,
                       "decode_sec_per_cached": [1e-8 * 4e9 / s for s in speed]})
    head = [level(t, [(t, b)], int(b) + 2304, e["damage"]["kl"], int(b)) for (t, b), e in zip(table, embed)]
    for h, e in zip(head, embed):
        h["damage"] = e["damage"]
    layers.append({"name": "head", "kv_bytes": 0, "buffer_bytes": 12804224, "levels": head})
    params = TABLE + 30 * (sum(ROWS.values()) + 1152) + 576
    least = TABLE * 4.25 / 8 + 30 * sum(ROWS.values()) * 4.25 / 8 + 30 * 786432 / 2 + 3114624 * nodes + 1e7
    share = [rng.uniform(.5, 1.5) for _ in names]
    if kinds:
        share = [share[i % kinds] for i in range(nodes)]
    memory = [int(least * room * w / sum(share)) for w in share]
    for i in range(nodes):  # somebody must be able to hold the table
        memory[i] = max(memory[i], 32000000 if i == 0 or kinds else 8000000)
    links = []
    for i in range(nodes):
        for k in range(nodes):
            if i != k:
                lat, speed_of_link = rng.uniform(.5e-3, 12e-3), rng.choice([1.2e7, 3e7, 1.2e8])
                if kinds:
                    lat, speed_of_link = 1e-3 * (1 + noise * rng.uniform(-1, 1)), 1.2e7
                links.append({"from": names[i], "to": names[k], "rtt_sec": 2 * lat, "latency_sec": lat, "bytes_per_sec": speed_of_link})
    profile = {"version": 1, "model": {"path": "made-up.gguf", "hash": "0" * 64, "arch": "llama", "n_blocks": 30, "n_vocab": 49152, "hidden_bytes": 2304,
                                       "n_params": params, "tied_head": True},
               "data": {"path": "none", "tokens": 1}, "context": 1024, "sequences": 1, "batch": batch, "n_past": 256,
               "nodes": names, "layers": layers}
    cluster = {"version": 1, "nodes": [{"name": n, "address": "127.0.0.1:1", "memory_bytes": m, "threads": 1} for n, m in zip(names, memory)],
               "links": links, "entry": names[0]}
    return profile, cluster


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("dir")
    a.add_argument("--nodes", type=int, default=3)
    a.add_argument("--levels", type=int, default=12)
    a.add_argument("--room", type=float, default=1.2)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--batch", type=int, default=128)
    a.add_argument("--kinds", type=int, default=0)
    a.add_argument("--noise", type=float, default=0.0)
    o = a.parse_args()
    os.makedirs(o.dir, exist_ok=True)
    for name, doc in zip(("profile", "cluster"), make(o.nodes, o.levels, o.room, o.seed, o.batch, o.kinds, o.noise)):
        with open(os.path.join(o.dir, name + ".json"), "w") as f:
            json.dump(doc, f)

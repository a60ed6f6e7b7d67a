"""A profile and a cluster of OPT-350M's shape, for `dilemma plan`.

The shape is the model's own (24 blocks, hidden 1024, FFN 4096, 16 heads, vocabulary 50272, embedding of 512 with projections, tied head, 331 M parameters);
bytes are those of ggml's types. What is assumed, since neither the weights nor the tables of the paper are at hand: a node computes a token at its
memory's bandwidth and a prompt at its arithmetic speed, times a factor of the type's kernel; damage is each type's relative squared error
on normally distributed weights times a sensitivity of the layer (log-normal, sigma 0.6, fixed seed)."""
import json
import math
import os
import random

HIDDEN, FFN, BLOCKS, VOCAB, EMBED, POSITIONS, CONTEXT = 1024, 4096, 24, 50272, 512, 2050, 1024
BITS = {"F16": 16, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K": 5.5, "Q4_K": 4.5, "MXFP4": 4.25, "Q3_K": 3.4375, "Q2_K": 2.625}
ERROR = {"F16": 0, "Q8_0": 3e-5, "Q6_K": 3e-4, "Q5_K": 1.2e-3, "Q4_K": 5e-3, "MXFP4": 1.3e-2, "Q3_K": 1.9e-2, "Q2_K": 6.5e-2}
KERNEL = {"F16": 1, "Q8_0": 1, "Q6_K": 1.25, "Q5_K": 1.3, "Q4_K": 1.05, "MXFP4": 1.1, "Q3_K": 1.5, "Q2_K": 1.3}
ATTN, UP = 4 * HIDDEN * HIDDEN, 2 * HIDDEN * FFN
SMALL = 4 * (4 * HIDDEN + FFN + HIDDEN + 4 * HIDDEN)  # biases and norms of a block, F32
TABLE = VOCAB * EMBED
PARAMS = BLOCKS * (ATTN + UP + SMALL // 4) + TABLE + POSITIONS * HIDDEN + 2 * EMBED * HIDDEN
# bytes a second of memory, operations a second, bytes offered: unlike machines at the edge
NODES = [(9e9, 50e9, 80e6), (5e9, 25e9, 70e6), (7e9, 35e9, 60e6), (4e9, 20e9, 90e6), (11e9, 60e9, 50e6), (6e9, 30e9, 60e6), (8e9, 40e9, 55e6), (3e9, 15e9, 120e6)]


def make(folder, n_nodes=4, bandwidth=1.25e7, latency=2e-3, speed=1.0, storage=1.0):
    """bandwidth bytes/s and latency s of every link; speed and storage multiply every node's."""
    rng = random.Random(350)
    nodes = NODES[:n_nodes]
    sensitivity = [math.exp(rng.gauss(0, 0.6)) for _ in range(BLOCKS + 1)]

    def level(name, types, parts, fixed, sens, shared=None):
        """parts: (role's parameters, type); of the first the share read for a token"""
        size = sum(n * BITS[t] / 8 for n, t in parts) + fixed
        total = sum(n for n, _ in parts)
        lookup = shared is False
        d = {"name": name, "types": types, "bytes": int(size), "damage": {"kl": None, "weight": sens * sum(n * ERROR[t] for n, t in parts) / total},
             "decode_sec": [(2e-6 if lookup else sum(n * BITS[t] / 8 * KERNEL[t] for n, t in parts) / (bw * speed)) for bw, _, _ in nodes],
             "prefill_sec": [(1e-7 if lookup else sum(2 * n * KERNEL[t] for n, t in parts) / (op * speed)) for _, op, _ in nodes]}
        if shared:
            d["shared_bytes"] = int(TABLE * BITS[parts[0][1]] / 8)
        return d

    table = [t for t in BITS if t != "F16"]
    own = 4 * (POSITIONS * HIDDEN) // 2 + EMBED * HIDDEN * 2  # positions and the projection in, half precision
    layers = [{"name": "embedding", "kv_bytes": 0, "buffer_bytes": 4 * HIDDEN * 128,
               "levels": [level(t, {"token_embd": t}, [(TABLE, t)], own, sensitivity[BLOCKS], shared=False) for t in table]}]
    for b in range(BLOCKS):
        mixes = [(t, t) for t in BITS] + [("Q6_K", "Q4_K"), ("Q5_K", "Q3_K"), ("Q4_K", "Q3_K"), ("Q4_K", "Q2_K")]
        levels = [level(a if a == u else a + "-" + u, {"attn": a, "ffn": u}, [(ATTN, a), (UP, u)], SMALL, sensitivity[b]) for a, u in mixes]
        layers.append({"name": f"blk.{b}", "kv_bytes": 2 * 2 * HIDDEN * CONTEXT, "buffer_bytes": 4 * 128 * (FFN + 4 * HIDDEN), "levels": levels})
    layers.append({"name": "head", "kv_bytes": 0, "buffer_bytes": 4 * VOCAB,
                   "levels": [level(t, {"output": t}, [(TABLE, t)], EMBED * HIDDEN * 2, 0, shared=True) for t in table]})
    names = [f"server{i}" for i in range(n_nodes)]
    profile = {"version": 1, "model": {"path": "opt-350m (shape only)", "hash": "", "arch": "opt", "n_blocks": BLOCKS, "n_vocab": VOCAB, "hidden_bytes": 4 * HIDDEN,
                                       "n_params": PARAMS, "tied_head": True},
               "data": {"path": None, "tokens": 1}, "context": CONTEXT, "sequences": 1, "batch": 128, "n_past": 256, "nodes": names, "layers": layers}
    cluster = {"version": 1, "entry": names[0],
               "nodes": [{"name": n, "memory_bytes": int(m * storage)} for n, (_, _, m) in zip(names, nodes)],
               "links": [{"from": a, "to": b, "latency_sec": latency, "bytes_per_sec": bandwidth} for a in names for b in names if a != b]}
    os.makedirs(folder, exist_ok=True)
    for name, doc in (("profile", profile), ("cluster", cluster)):
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump(doc, f)

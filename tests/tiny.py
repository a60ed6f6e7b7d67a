# A small random Llama model with the beginning of the test model's vocabulary: whole paths in seconds.
import json, os, struct, sys
import numpy as np
from gguf import GGUFReader, GGUFWriter, GGUFValueType, LlamaFileType


def need_model():
    model = os.environ.get("DILEMMA_TEST_MODEL", "")
    if not os.path.exists(model):
        print(f"SKIPPED: the test model is not there ({model!r}): its vocabulary is needed")
        sys.exit(77)
    return model


def write_tokenizer(g, model, vocab):
    """The first `vocab` tokens and the merges that stay among them; beyond the model's own, made up ones that no text reaches."""
    fields = {k: f for k, f in GGUFReader(model).fields.items() if k.startswith("tokenizer.")}
    tokens = list(fields["tokenizer.ggml.tokens"].contents())
    kept = set(tokens[:vocab])
    for k, f in fields.items():
        if f.types[0] != GGUFValueType.ARRAY:
            g.add_key_value(k, f.contents(), f.types[0])
            continue
        v = list(f.contents())
        if k.endswith(".merges"): v = [m for m in v if "".join(m.split(" ")) in kept and all(part in kept for part in m.split(" "))]
        else: v = v[:vocab] + [f"<more{i}>" if isinstance(v[0], str) else v[-1] for i in range(vocab - len(v))]
        g.add_key_value(k, v, f.types[0], sub_type=f.types[-1])


def write_model(path, model, vocab=2048, width=128, ff=256, blocks=4, heads=4, kv_heads=2, context=512, poison=None, seed=1):
    rng = np.random.default_rng(seed)
    g = GGUFWriter(path, "llama")
    write_tokenizer(g, model, vocab)
    g.add_block_count(blocks); g.add_embedding_length(width); g.add_feed_forward_length(ff); g.add_head_count(heads); g.add_head_count_kv(kv_heads)
    g.add_context_length(context); g.add_layer_norm_rms_eps(1e-5); g.add_rope_dimension_count(width // heads); g.add_rope_freq_base(10000.0)
    g.add_vocab_size(vocab); g.add_file_type(LlamaFileType.MOSTLY_F16)

    def put(name, rows, cols):
        w = (rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float16)
        if name == poison: w[1, 2] = np.nan
        g.add_tensor(name + ".weight", w)

    put("token_embd", vocab, width)
    for l in range(blocks):
        b, kv = f"blk.{l}.", width // heads * kv_heads
        for n, rows, cols in (("attn_q", width, width), ("attn_k", kv, width), ("attn_v", kv, width), ("attn_output", width, width),
                              ("ffn_gate", ff, width), ("ffn_up", ff, width), ("ffn_down", width, ff)):
            put(b + n, rows, cols)
        for n in ("attn_norm", "ffn_norm"): g.add_tensor(b + n + ".weight", np.ones(width, np.float32))
    g.add_tensor("output_norm.weight", np.ones(width, np.float32))
    g.write_header_to_file(); g.write_kv_data_to_file(); g.write_tensors_to_file(); g.close()


BLOCK = {"F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q2_K": (256, 84),
         "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ3_XXS": (256, 98),
         "IQ1_S": (256, 50), "IQ4_NL": (32, 18), "IQ3_S": (256, 110), "IQ2_S": (256, 82), "IQ4_XS": (256, 136), "IQ1_M": (256, 56), "BF16": (1, 2),
         "MXFP4": (32, 17), "Q2_0": (64, 18)}
TYPE = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
        16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 30: "BF16",
        39: "MXFP4", 42: "Q2_0"}


def tensors_of(path):
    """{name: (type, elements, bytes)} of a GGUF file; the gguf package does not know the newest types."""
    with open(path, "rb") as f:
        def num(form): return struct.unpack("<" + form, f.read(struct.calcsize(form)))[0]
        def text(): return f.read(num("Q")).decode()
        def skip(kind):
            if kind == 8: text()
            elif kind == 9:
                of, n = num("I"), num("Q")
                for _ in range(n): skip(of)
            else: f.read({0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}[kind])
        assert f.read(4) == b"GGUF" and num("I") == 3
        n_tensors, n_keys = num("Q"), num("Q")
        for _ in range(n_keys): text(); skip(num("I"))
        out = {}
        for _ in range(n_tensors):
            name, n = text(), 1
            for _ in range(num("I")): n *= num("Q")
            kind = TYPE[num("I")]
            num("Q")
            out[name] = (kind, n, n // BLOCK[kind][0] * BLOCK[kind][1])
        return out


def write_cluster(path, keys, where, memory):
    """where: {name: address}; keys: a folder of `dilemma keys cluster`. The first name is the entry."""
    names = list(where)
    key = lambda n: open(f"{keys}/{n}.pub").read().splitlines()[-1].split()[0]
    json.dump({"version": 1, "entry": names[0], "nodes": [{"name": n, "address": where[n], "public_key": key(n), "memory_bytes": memory} for n in names],
               "links": [{"from": x, "to": y, "latency_sec": 0.001, "bytes_per_sec": 1e8} for x in names for y in names if x != y]}, open(path, "w"))


def write_plan(path, model, cuts, token_sec=0.01):
    """cuts: [(node, first layer, last layer)] of a file in F16, by hand."""
    end = cuts[-1][2]
    layers = [{"layer": l, "name": "embedding" if l == 0 else "head" if l == end else "blk.%d" % (l - 1), "node": x, "level": "F16", "types": {}, "bytes": 0}
              for x, first, last in cuts for l in range(first, last + 1)]
    json.dump({"version": 1, "model": {"path": model, "hash": ""}, "entry": cuts[0][0], "context": 256, "sequences": 2, "tokens_in": 64, "tokens_out": 100, "token_sec": token_sec,
               "layers": layers, "stages": [{"node": x, "first_layer": f, "last_layer": l, "compute_sec": token_sec / 4, "hop_sec": token_sec / 8} for x, f, l in cuts]}, open(path, "w"))

"""Checkpoints with the exact configurations of published models and weights that anybody can make again: every weight is a
function of its tensor's name and its index, and a multiple of a power of two that a half holds exactly, so that the F16 file
and the F32 computation mean the same numbers.

    make_model.py NAME FOLDER     writes config.json and model.safetensors as a Hugging Face folder"""
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

N_TOKENS = 40
POSITIONS = [0, 1, 3, 7, 14, 21, 30, 39]
N_SAMPLED = 512


def opt(hidden, layers, heads, ffn, word, before):
    return {"model_type": "opt", "architectures": ["OPTForCausalLM"], "activation_function": "relu", "attention_dropout": 0.0,
            "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "do_layer_norm_before": before, "dropout": 0.0, "ffn_dim": ffn,
            "hidden_size": hidden, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
            "num_attention_heads": heads, "num_hidden_layers": layers, "vocab_size": 50272, "word_embed_proj_dim": word,
            "torch_dtype": "float16"}


def llama(hidden, layers, heads, kv, ffn, vocab, theta, ctx, tied, scaling=None):
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
            "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": hidden, "initializer_range": 0.02,
            "intermediate_size": ffn, "max_position_embeddings": ctx, "num_attention_heads": heads, "num_hidden_layers": layers,
            "num_key_value_heads": kv, "rms_norm_eps": 1e-5, "rope_scaling": scaling, "rope_theta": theta,
            "tie_word_embeddings": tied, "vocab_size": vocab, "torch_dtype": "float16"}


CONFIGS = {
    "opt-125m": opt(768, 12, 12, 3072, 768, True),
    "opt-350m": opt(1024, 24, 16, 4096, 512, False),
    "smollm2-135m": llama(576, 30, 9, 3, 1536, 49152, 100000.0, 8192, True),
    "llama3-small": llama(256, 4, 8, 2, 768, 2048, 500000.0, 512, False,
                          {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                           "original_max_position_embeddings": 64, "rope_type": "llama3"}),
}


def opt_tensors(c):
    h, f, w = c["hidden_size"], c["ffn_dim"], c["word_embed_proj_dim"]
    d = "model.decoder."
    t = {d + "embed_tokens.weight": (c["vocab_size"], w), d + "embed_positions.weight": (c["max_position_embeddings"] + 2, h)}
    if w != h:
        t[d + "project_in.weight"], t[d + "project_out.weight"] = (h, w), (w, h)
    if c["do_layer_norm_before"]:
        t[d + "final_layer_norm.weight"] = t[d + "final_layer_norm.bias"] = (h,)
    for i in range(c["num_hidden_layers"]):
        p = f"{d}layers.{i}."
        for m, shape in (("self_attn.q_proj", (h, h)), ("self_attn.k_proj", (h, h)), ("self_attn.v_proj", (h, h)),
                         ("self_attn.out_proj", (h, h)), ("fc1", (f, h)), ("fc2", (h, f))):
            t[p + m + ".weight"], t[p + m + ".bias"] = shape, shape[:1]
        for m in ("self_attn_layer_norm", "final_layer_norm"):
            t[p + m + ".weight"] = t[p + m + ".bias"] = (h,)
    return t


def llama_tensors(c):
    h, f = c["hidden_size"], c["intermediate_size"]
    kv = h // c["num_attention_heads"] * c["num_key_value_heads"]
    t = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    if not c["tie_word_embeddings"]:
        t["lm_head.weight"] = (c["vocab_size"], h)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        t |= {p + "self_attn.q_proj.weight": (h, h), p + "self_attn.k_proj.weight": (kv, h), p + "self_attn.v_proj.weight": (kv, h),
              p + "self_attn.o_proj.weight": (h, h), p + "mlp.gate_proj.weight": (f, h), p + "mlp.up_proj.weight": (f, h),
              p + "mlp.down_proj.weight": (h, f), p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,)}
    return t


def tensors(c):
    return opt_tensors(c) if c["model_type"] == "opt" else llama_tensors(c)


def noise(name, n):
    """n integers in [-1024, 1024), by splitmix64 of the index from a seed that the name gives."""
    with np.errstate(over="ignore"):
        z = np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(zlib.crc32(name.encode()) << 17)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(53)).astype(np.int16) - np.int16(1024)


def weight(name, shape):
    """F16 values. Linear weights have about unit gain, so that attention has something to tell apart."""
    n = int(np.prod(shape))
    q = noise(name, n).astype(np.float32)
    if len(shape) == 1:
        x = q * np.float32(2**-13) + np.float32(1 if name.endswith("norm.weight") else 0)
        x = np.round(x * 1024) / 1024 if name.endswith("norm.weight") else x
    else:
        gain = 0.05 if "embed" in name else 1.5 / np.sqrt(shape[1]) if "q_proj" in name or "k_proj" in name else 1 / np.sqrt(shape[1])
        x = q * np.float32(2.0 ** np.round(np.log2(gain * np.sqrt(3) / 1024)))
    y = x.astype(np.float16)
    assert np.array_equal(y.astype(np.float32), x.astype(np.float32))
    return y.reshape(shape)


def write(name, folder):
    c = CONFIGS[name]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c, indent=1))
    shapes = tensors(c)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for t, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[t] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t, shape in shapes.items():
            f.write(weight(t, shape).tobytes())


def token_ids(name):
    v = CONFIGS[name]["vocab_size"]
    return [int(i) for i in (noise(name + ".tokens", N_TOKENS).astype(np.int64) + 1024) * 7919 % (v - 10) + 5]


def sampled(name):
    """Which entries of the vocabulary are compared."""
    v = CONFIGS[name]["vocab_size"]
    return [int(i) for i in (noise(name + ".sample", N_SAMPLED).astype(np.int64) + 1024) * 104729 % v]


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2])

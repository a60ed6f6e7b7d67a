#!/usr/bin/env python3
"""Writes the tiny PyTorch checkpoints beside this file, with torch.save itself, so that the tests need no torch.

    python3 tests/data/make_checkpoints.py       (needs torch; any 1.6 or newer; made with 1.13)

opt-post    OPT-350M's kind: norms after the sums, no final norm, word embeddings narrower than the blocks; half precision
opt-pre     the other OPT sizes' kind: norms before, final norm; single precision; names without the leading "model."
llama       a Llama with fewer key/value heads, own head, Llama 3's rope scaling; bfloat16, in two shards

Values follow from the tensor's name and the element's index (see `value`), so that the reader of the import's test computes
them again without reading these files. Exact in bfloat16, half and single precision alike.
"""
import collections
import json
import os
import zlib

import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def value(name, n):
    """n numbers k/64, k in [-96, 96], from the CRC-32 of the name: a small linear congruential generator."""
    x = zlib.crc32(name.encode())
    out = []
    for _ in range(n):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(((x >> 16) % 193 - 96) / 64)
    return out


def tensor(name, shape, dtype):
    n = 1
    for d in shape:
        n *= d
    return torch.tensor(value(name, n), dtype=torch.float32).reshape(shape).to(dtype)


def opt(config, prefix):
    h, f, w = config["hidden_size"], config["ffn_dim"], config["word_embed_proj_dim"]
    yield prefix + "embed_tokens.weight", (config["vocab_size"], w)
    yield prefix + "embed_positions.weight", (config["max_position_embeddings"] + 2, h)
    if w != h:
        yield prefix + "project_in.weight", (h, w)
        yield prefix + "project_out.weight", (w, h)
    if config["do_layer_norm_before"]:
        yield prefix + "final_layer_norm.weight", (h,)
        yield prefix + "final_layer_norm.bias", (h,)
    for i in range(config["num_hidden_layers"]):
        p = f"{prefix}layers.{i}."
        for m in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield p + f"self_attn.{m}.weight", (h, h)
            yield p + f"self_attn.{m}.bias", (h,)
        yield p + "self_attn_layer_norm.weight", (h,)
        yield p + "self_attn_layer_norm.bias", (h,)
        yield p + "fc1.weight", (f, h)
        yield p + "fc1.bias", (f,)
        yield p + "fc2.weight", (h, f)
        yield p + "fc2.bias", (h,)
        yield p + "final_layer_norm.weight", (h,)
        yield p + "final_layer_norm.bias", (h,)


def llama(config):
    h, f, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    yield "model.embed_tokens.weight", (config["vocab_size"], h)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        yield p + "self_attn.q_proj.weight", (q, h)
        yield p + "self_attn.k_proj.weight", (kv, h)
        yield p + "self_attn.v_proj.weight", (kv, h)
        yield p + "self_attn.o_proj.weight", (h, q)
        yield p + "mlp.gate_proj.weight", (f, h)
        yield p + "mlp.up_proj.weight", (f, h)
        yield p + "mlp.down_proj.weight", (h, f)
        yield p + "input_layernorm.weight", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (config["vocab_size"], h)


def state_dict(tensors):
    d = collections.OrderedDict(tensors)
    d._metadata = collections.OrderedDict({"": {"version": 1}, "model": {"version": 1}})  # as nn.Module.state_dict has it
    return d


def folder(name, config):
    path = os.path.join(HERE, name)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    return path


def main():
    config = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "vocab_size": 40, "hidden_size": 16, "word_embed_proj_dim": 8,
              "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12,
              "do_layer_norm_before": False, "activation_function": "relu", "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    tensors = [(n, tensor(n, s, torch.float16)) for n, s in opt(config, "model.decoder.")]
    tied = dict(tensors)["model.decoder.embed_tokens.weight"]
    tensors.append(("lm_head.weight", tied))  # one storage under two names
    torch.save(state_dict(tensors), os.path.join(folder("opt-post", config), "pytorch_model.bin"))

    config = dict(config, word_embed_proj_dim=16, do_layer_norm_before=True)
    tensors = [(n, torch.nn.Parameter(tensor(n, s, torch.float32))) for n, s in opt(config, "decoder.")]
    torch.save(state_dict(tensors), os.path.join(folder("opt-pre", config), "pytorch_model.bin"))

    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5,
              "rope_theta": 500000.0, "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": False,
              "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 256}}
    path = folder("llama", config)
    tensors = [(n, tensor(n, s, torch.bfloat16)) for n, s in llama(config)]
    half = len(tensors) // 2
    shards = {"pytorch_model-00001-of-00002.bin": tensors[:half], "pytorch_model-00002-of-00002.bin": tensors[half:]}
    for file, part in shards.items():
        torch.save(state_dict(part), os.path.join(path, file))
    with open(os.path.join(path, "pytorch_model.bin.index.json"), "w") as f:
        total = sum(t.numel() * 2 for _, t in tensors)
        json.dump({"metadata": {"total_size": total}, "weight_map": {n: file for file, part in shards.items() for n, _ in part}}, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main()

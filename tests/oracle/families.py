"""Small checkpoints with the features of each family's real configurations, and weights that anybody can make again (make_model.py).
Windows and stretched contexts are short enough that 40 tokens reach past them."""
import json
import struct
from pathlib import Path

import numpy as np

from make_model import noise

N_TOKENS = 40
POSITIONS = [0, 3, 11, 15, 16, 17, 25, 33, 39]
VOCAB = 384
SAMPLED = 96


def base(kind, cls, **more):
    return {"model_type": kind, "architectures": [cls], "vocab_size": VOCAB, "hidden_size": 128, "intermediate_size": 224, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "rope_theta": 10000.0, "tie_word_embeddings": False} | more


def gemma(kind, cls, **more):
    return base(kind, cls, hidden_activation="gelu_pytorch_tanh", head_dim=64, query_pre_attn_scalar=64, sliding_window=16, tie_word_embeddings=True,
                attention_bias=False) | more


def phi(**more):
    return base("phi3", "Phi3ForCausalLM", original_max_position_embeddings=512, sliding_window=None, rope_scaling=None, pad_token_id=0) | more


def factors(n, most):
    return [round(1 + (most - 1) * i / (n - 1), 3) for i in range(n)]


CONFIGS = {
    "llama2": base("llama", "LlamaForCausalLM", num_key_value_heads=4, rms_norm_eps=1e-5, max_position_embeddings=4096, rope_scaling=None, attention_bias=False),
    "mistral": base("mistral", "MistralForCausalLM", sliding_window=16, head_dim=None),
    "mistral-nemo": base("mistral", "MistralForCausalLM", sliding_window=None, head_dim=48, rope_theta=1e6),
    "qwen2": base("qwen2", "Qwen2ForCausalLM", tie_word_embeddings=True, rope_theta=1e6, use_sliding_window=False, sliding_window=32768, max_window_layers=21),
    "qwen2.5": base("qwen2", "Qwen2ForCausalLM", tie_word_embeddings=False, rope_theta=1e6, use_sliding_window=False, sliding_window=131072, max_window_layers=28),
    "qwen3": base("qwen3", "Qwen3ForCausalLM", tie_word_embeddings=True, rope_theta=1e6, head_dim=64, attention_bias=False, use_sliding_window=False,
                  sliding_window=None, max_window_layers=28),
    "smollm3": base("smollm3", "SmolLM3ForCausalLM", tie_word_embeddings=True, rope_theta=5e6, num_hidden_layers=9, no_rope_layer_interval=4,
                    no_rope_layers=[1, 1, 1, 0, 1, 1, 1, 0, 1], use_sliding_window=False, attention_bias=False, mlp_bias=False,
                    layer_types=["full_attention"] * 9, pad_token_id=0),
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": VOCAB, "n_embd": 128, "n_head": 4, "n_layer": 4, "n_positions": 512,
             "n_ctx": 512, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "bos_token_id": 1, "eos_token_id": 1},
    "gemma2": gemma("gemma2", "Gemma2ForCausalLM", attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gemma2-27b": gemma("gemma2", "Gemma2ForCausalLM", attn_logit_softcapping=50.0, final_logit_softcapping=30.0, num_hidden_layers=46, hidden_size=96,
                        intermediate_size=96, head_dim=32, query_pre_attn_scalar=24),
    "gemma3": gemma("gemma3_text", "Gemma3ForCausalLM", num_hidden_layers=8, rope_theta=1e6, rope_local_base_freq=10000.0,
                    rope_scaling={"rope_type": "linear", "factor": 8.0}, sliding_window_pattern=6, attn_logit_softcapping=None, final_logit_softcapping=None),
    "phi3": phi(sliding_window=24),
    "phi3-long": phi(original_max_position_embeddings=32, partial_rotary_factor=0.75, rope_scaling={
        "type": "longrope", "long_factor": factors(12, 30.0), "short_factor": factors(12, 2.0)}),
    "phi3-short": phi(original_max_position_embeddings=256, tie_word_embeddings=True, rope_scaling={
        "type": "longrope", "long_factor": factors(16, 30.0), "short_factor": factors(16, 2.0)}),
}
CONTEXT = {"phi3-short": 256}  # the window size that makes llama.cpp and us take the short factors, as transformers does for few tokens


def gpt2_tensors(c):
    h = c["n_embd"]
    t = {"transformer.wte.weight": (c["vocab_size"], h), "transformer.wpe.weight": (c["n_positions"], h)}
    for i in range(c["n_layer"]):
        p = f"transformer.h.{i}."
        for n, shape in (("attn.c_attn", (h, 3 * h)), ("attn.c_proj", (h, h)), ("mlp.c_fc", (h, 4 * h)), ("mlp.c_proj", (4 * h, h))):
            t[p + n + ".weight"], t[p + n + ".bias"] = shape, shape[1:]
        for n in ("ln_1", "ln_2"):
            t[p + n + ".weight"] = t[p + n + ".bias"] = (h,)
    return t | {"transformer.ln_f.weight": (h,), "transformer.ln_f.bias": (h,)}


def tensors(c):
    kind = c["model_type"]
    if kind == "gpt2":
        return gpt2_tensors(c)
    h, f, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    d = c.get("head_dim") or h // heads
    q, kv = heads * d, c["num_key_value_heads"] * d
    t = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    if not c["tie_word_embeddings"]:
        t["lm_head.weight"] = (c["vocab_size"], h)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind.startswith("gemma"):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        linear = {"self_attn.o_proj": (h, q), "mlp.down_proj": (h, f)}
        if kind == "phi3":
            linear |= {"self_attn.qkv_proj": (q + 2 * kv, h), "mlp.gate_up_proj": (2 * f, h)}
        else:
            linear |= {"self_attn.q_proj": (q, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h), "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h)}
        for n, shape in linear.items():
            t[p + n + ".weight"] = shape
            if kind == "qwen2" and n[10] in "qkv" and n.endswith("_proj") and "self_attn" in n and "o_proj" not in n:
                t[p + n + ".bias"] = shape[:1]
        t |= {p + n + ".weight": (h,) for n in norms}
        if kind in ("qwen3", "gemma3_text"):
            t |= {p + f"self_attn.{n}_norm.weight": (d,) for n in "qk"}
    return t


def weight(kind, name, shape):
    q = noise(name, int(np.prod(shape))).astype(np.float32) / 1024
    norm = "norm." in name or ".ln_" in name
    if norm and name.endswith(".weight"):
        x = q * 0.25 + (0 if kind.startswith("gemma") else 1)
    elif len(shape) == 1:
        x = q * 0.125
    elif "embed" in name or ".wte" in name or ".wpe" in name:
        x = q * 0.5
    else:
        n_in = shape[0] if kind == "gpt2" else shape[1]
        x = q * np.float32((3.0 if "q_proj" in name or "k_proj" in name or "qkv" in name or "c_attn" in name else 1.7) / np.sqrt(n_in))
    return x.astype(np.float32).reshape(shape)


def byte_alphabet():
    plain = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
    rest = [b for b in range(256) if b not in plain]
    table = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return [table[b] for b in range(256)]


def tokenizer():
    """Bytes and a few merges: enough for llama.cpp to take a prompt."""
    tokens = ["<unk>", "<s>", "</s>"] + byte_alphabet() + ["th", "the", "in"]
    return {"version": "1.0", "added_tokens": [{"id": i, "content": tokens[i], "special": True} for i in range(3)], "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, "post_processor": None,
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": ["t h", "th e", "i n"]}}


def write(name, folder):
    c = CONFIGS[name]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c, indent=1))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    shapes = tensors(c)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for t, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[t] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t, shape in shapes.items():
            f.write(weight(c["model_type"], t, shape).tobytes())


def token_ids(name):
    return [int(i) for i in (noise(name + ".tokens", N_TOKENS).astype(np.int64) + 1024) * 7919 % (VOCAB - 10) + 5]


def sampled(name):
    return [int(i) for i in (noise(name + ".sample", SAMPLED).astype(np.int64) + 1024) * 104729 % VOCAB]

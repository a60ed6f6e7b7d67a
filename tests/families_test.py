"""Every family of architectures: small checkpoints with the features of real configurations (tests/oracle/families.py) are imported and run;
their logits are those that transformers computed (families.npz), and llama.cpp's on the file that we wrote. Split over stages the same bits
come out (src/engine/stage_test.c). What a family does not have is refused by name."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "oracle"))
try:
    import numpy as np
except ImportError as e:
    print(f"SKIPPED: {e} (tools/deps python)")
    sys.exit(77)
import families

DILEMMA = os.environ["DILEMMA"]
LLAMA = Path(os.environ.get("DILEMMA_LLAMA_BIN", "/nonexistent")) / "llama-debug"
LIMIT = 1e-3
PROMPT = "the inner thing that they think in the end, within the thin winter"
tmp = Path(tempfile.mkdtemp(prefix="families-"))


def logits(model, ids, *args):
    out = tmp / "logits.bin"
    r = subprocess.run([DILEMMA, "run", str(model), "--ids", ",".join(map(str, ids)), "-n", "1", "-t", "1", "--logits", str(out), "--json", "--quiet", *args],
                       capture_output=True, timeout=120)
    assert r.returncode == 0, r.stderr.decode()
    return np.fromfile(out, np.float32).reshape(len(ids), families.VOCAB)


def relative(got, expected):
    return float(np.linalg.norm((got - expected).astype(np.float64)) / np.linalg.norm(expected.astype(np.float64)))


def imported(folder, *args):  # llama.cpp expects certain tokens of models whose name begins with phi3
    out = tmp / "model.gguf"
    r = subprocess.run([DILEMMA, "import", str(folder), "-o", str(out), "--type", "f32", "--name", "tiny", "--quiet", *args], capture_output=True, timeout=120)
    assert r.returncode == 0, r.stderr.decode()
    return out


def against_transformers(name, model, expected):
    context = ["-c", str(families.CONTEXT[name])] if name in families.CONTEXT else []
    errors = []
    for how in (["--exact"], []):  # the reference arithmetic; then flash attention with a half cache
        rows = logits(model, families.token_ids(name), *how, *context)[families.POSITIONS]
        got = np.hstack([rows[:, families.sampled(name)], np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)])
        errors.append(max(relative(g, e) for g, e in zip(got, expected)))
    print(f"{name}: relative error of the logits against transformers {errors[0]:.1e} exact, {errors[1]:.1e} as served", flush=True)
    assert errors[0] <= LIMIT and errors[1] <= 30 * LIMIT, (name, errors)


def against_llama_cpp(name, model):
    out, context = tmp / "llama", families.CONTEXT.get(name, 512)
    r = subprocess.run([str(LLAMA), "-m", str(model), "-p", PROMPT, "-t", "1", "-fa", "off", "-ctk", "f32", "-ctv", "f32", "-c", str(context), "--save-logits",
                        "--logits-output-dir", str(out)], capture_output=True, timeout=120)
    assert r.returncode == 0, r.stderr.decode()[-2000:]
    ids = [int(i) for i in np.fromfile(next(out.glob("*-tokens.bin")), np.int32)]
    expected = np.fromfile(next(f for f in out.glob("*.bin") if "-tokens" not in f.name), np.float32)
    shutil.rmtree(out)
    e = relative(logits(model, ids, "--exact", "-c", str(context))[-1], expected)
    print(f"{name}: against llama.cpp, {len(ids)} tokens: {e:.1e}", flush=True)
    # llama.cpp looks GELU up in a table of halves, which 46 blocks add up.
    assert e <= (3 * LIMIT if name == "gemma2-27b" else LIMIT), (name, e)


def quantized(name, method, limit):
    """To Q8_0 by the layer-wise method, or by what is done where that does not know the family."""
    folder, out = tmp / name, tmp / "q8.gguf"
    families.write(name, folder)
    model = imported(folder)
    r = subprocess.run([DILEMMA, "quantize", str(model), "-o", str(out), "--type", "Q8_0", "--method", "layerwise", "--json", "-t", "1"], capture_output=True, timeout=200)
    assert r.returncode == 0, r.stderr.decode()
    assert json.loads(r.stdout)["method"] == method and (method == "layerwise" or "quantizing by gptq" in r.stderr.decode()), (name, r.stdout, r.stderr)
    e = relative(logits(out, families.token_ids(name)), logits(model, families.token_ids(name)))
    print(f"{name}: Q8_0 by {method} changes the logits by {e:.1e}", flush=True)
    assert 0 < e < limit, (name, e)


def refused(name, says, **changes):
    folder = tmp / "refused"
    families.write(name, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    r = subprocess.run([DILEMMA, "import", str(folder), "-o", str(tmp / "refused.gguf"), "--quiet"], capture_output=True, timeout=120)
    assert r.returncode == 4 and says in r.stderr.decode(), (says, r.returncode, r.stderr.decode())
    shutil.rmtree(folder)


def main():
    expected = np.load(HERE / "oracle" / "families.npz")
    if not LLAMA.exists():
        print("SKIPPED: the comparison with llama.cpp (no DILEMMA_LLAMA_BIN)")
    for name in sys.argv[1:] or families.CONFIGS:
        folder = tmp / name
        families.write(name, folder)
        model = imported(folder)
        against_transformers(name, model, expected[name])
        # Windows that llama.cpp leaves out (it takes all llama and phi3 models for unwindowed) are checked against transformers alone.
        if LLAMA.exists() and name not in ("mistral", "phi3"):
            against_llama_cpp(name, model)
    quantized("smollm3", "layerwise", 0.3)
    quantized("gemma3", "gptq", 0.3)
    quantized("phi3-long", "gptq", 0.3)
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    refused("qwen2", 'rope_scaling of type "yarn"', rope_scaling=yarn)
    refused("qwen2", '"use_sliding_window" of qwen2', use_sliding_window=True)
    refused("smollm3", '"no_rope_layers" is not the pattern', no_rope_layers=[1, 1, 0, 1, 1, 1, 1, 0, 1])
    refused("smollm3", '"no_rope_layer_interval" is 3', no_rope_layer_interval=3)
    refused("gemma3", '"layer_types" is not the pattern', layer_types=["full_attention"] * 8)
    refused("gemma2", '"hidden_activation" is "relu"', hidden_activation="relu")
    refused("gpt2", "scale_attn_by_inverse_layer_idx", scale_attn_by_inverse_layer_idx=True)
    refused("qwen3", 'model_type "qwen3_moe" is not supported; known are mistral, llama', model_type="qwen3_moe")
    refused("mistral", "has no place in the model", model_type="llama", num_hidden_layers=3)


try:
    main()
finally:
    shutil.rmtree(tmp, ignore_errors=True)

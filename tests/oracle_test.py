"""The decoder against transformers in fp32: logits of checkpoints with the exact configurations of OPT-125M, OPT-350M, SmolLM2-135M
and a small one with Llama 3's rope scaling, whose weights tests/oracle/make_model.py makes again. What transformers computed is
stored beside it (expect.py). And the real SmolLM2 against llama.cpp, with an F32 cache and no flash attention."""
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
import make_model

DILEMMA = os.environ["DILEMMA"]
LLAMA_BIN = Path(os.environ.get("DILEMMA_LLAMA_BIN", "/nonexistent"))
MODEL = Path(os.environ.get("DILEMMA_TEST_MODEL", "/nonexistent"))
LIMIT = 1e-3
# Checkpoints are up to 2 GB: beside the build, not in a /tmp that may be memory.
tmp = Path(tempfile.mkdtemp(prefix="oracle-", dir=Path(DILEMMA).resolve().parent))


def logits(model, ids, n_vocab, *args):
    out = tmp / "logits.bin"
    r = subprocess.run([DILEMMA, "run", str(model), "--ids", ",".join(map(str, ids)), "-n", "1", "--logits", str(out), "--json",
                        "--quiet", *args], capture_output=True, timeout=600)
    assert r.returncode == 0, r.stderr.decode()
    return np.fromfile(out, np.float32).reshape(len(ids), n_vocab)


def relative(got, expected):
    return float(np.linalg.norm((got - expected).astype(np.float64)) / np.linalg.norm(expected.astype(np.float64)))


def check_transformers(name):
    c = make_model.CONFIGS[name]
    folder, model = tmp / name, tmp / f"{name}.gguf"
    make_model.write(name, folder)
    r = subprocess.run([DILEMMA, "import", str(folder), "-o", str(model), "--type", "f32", "--no-tokenizer", "--quiet"],
                       capture_output=True, timeout=600)
    assert r.returncode == 0, r.stderr.decode()
    shutil.rmtree(folder)
    expected = np.load(HERE / "oracle" / f"{name}.npy")
    for how in (["--exact"], []):  # the reference arithmetic; then flash attention with a half cache
        rows = logits(model, make_model.token_ids(name), c["vocab_size"], *how)[make_model.POSITIONS]
        got = np.hstack([rows[:, make_model.sampled(name)], np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)])
        worst = max(relative(got[i, :-1], expected[i, :-1]) for i in range(len(got)))
        norm = float(np.max(np.abs(got[:, -1] / expected[:, -1] - 1)))
        limit = LIMIT if how else 30 * LIMIT  # a half cache, and ggml sums values in halves: rounding, not another function
        print(f"{name}: {'exact' if how else 'default'}: relative error of the logits {worst:.2e}, of their norms {norm:.2e}")
        assert worst <= limit and norm <= limit, (name, worst, norm)
    model.unlink()


def llama_logits(model, prompt):
    """Token ids and the last token's logits, from llama.cpp."""
    out = tmp / "llama"
    shutil.rmtree(out, ignore_errors=True)
    r = subprocess.run([str(LLAMA_BIN / "llama-debug"), "-m", str(model), "-p", prompt, "-t", "2", "-fa", "off", "-ctk", "f32", "-ctv", "f32",
                        "-c", "512", "--save-logits", "--logits-output-dir", str(out)], capture_output=True, timeout=300)
    assert r.returncode == 0, r.stderr.decode()[-2000:]
    ids = np.fromfile(next(out.glob("*-tokens.bin")), np.int32)
    return [int(i) for i in ids], np.fromfile(next(f for f in out.glob("*.bin") if "-tokens" not in f.name), np.float32)


def check_llama_cpp(model, what):
    for prompt in ("Once upon a time", "The capital of France is Paris, and the capital of Italy is", "def add(a, b):\n    return"):
        ids, expected = llama_logits(model, prompt)
        got = logits(model, ids, len(expected), "--exact")[-1]
        e = relative(got, expected)
        print(f"SmolLM2-135M-Instruct {what}, {len(ids)} tokens, against llama.cpp: relative error of the logits {e:.2e}")
        assert e <= LIMIT, (what, prompt, e)


def compare_with_llama_cpp():
    if not (LLAMA_BIN / "llama-debug").exists() or not MODEL.exists():
        print("SKIPPED: the comparison with llama.cpp (no DILEMMA_LLAMA_BIN or no model)")
        return
    check_llama_cpp(MODEL, "as shipped (Q4_1)")
    for kind in ("F16", "F32"):
        out = tmp / f"{kind}.gguf"
        r = subprocess.run([str(LLAMA_BIN / "llama-quantize"), "--allow-requantize", str(MODEL), str(out), kind, "2"],
                           capture_output=True, timeout=300)
        assert r.returncode == 0, r.stderr.decode()[-2000:]
        check_llama_cpp(out, kind)
        out.unlink()


def main():
    compare_with_llama_cpp()
    for name in make_model.CONFIGS:
        check_transformers(name)


try:
    main()
finally:
    shutil.rmtree(tmp, ignore_errors=True)

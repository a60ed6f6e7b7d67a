# The importance matrix that `quantize` gathers against llama-imatrix: the same model, text and chunks. Ours is written by `profile`; and
# llama-imatrix's file is taken by `quantize --imatrix`.
import json, os, subprocess, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ.get("DILEMMA", ""), tiny.need_model()
llama = os.path.join(os.environ.get("DILEMMA_LLAMA_BIN", ""), "llama-imatrix")
if not os.path.exists(llama):
    print(f"SKIPPED: llama-imatrix is not there ({llama!r}): importance matrices were not compared")
    sys.exit(77)
import numpy as np
from gguf import GGUFReader

CTX, CHUNKS = 384, 4  # `profile` gathers in chunks of 384 from the start of the text, and measures damage behind that
rng = np.random.default_rng(3)
words = "the of and to in is was for on that with as by at from his it an were are which this had be or".split()

def run(*args):
    r = subprocess.run(args, capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r

def read(path):
    t = {x.name: np.array(x.data, dtype=np.float64).reshape(-1) for x in GGUFReader(path).tensors}
    return {n[:-len(".in_sum2")]: v / t[n.replace(".in_sum2", ".counts")][0] for n, v in t.items() if n.endswith(".in_sum2")}

with tempfile.TemporaryDirectory() as tmp:
    p = lambda name: os.path.join(tmp, name)
    tiny.write_model(p("m.gguf"), model, vocab=2048, width=128, blocks=3)
    open(p("t.txt"), "w").write(" ".join(words[int(rng.integers(len(words)))] for _ in range(CTX * CHUNKS + 1400)))
    node = {"name": "here", "address": "", "memory_bytes": 1 << 34, "threads": 1, "device": "CPU", "throttle": 1.0}
    json.dump({"version": 1, "nodes": [node], "links": [], "entry": "here"}, open(p("c.json"), "w"))
    run(dilemma, "profile", p("m.gguf"), "--time-here", "--cluster", p("c.json"), "--data", p("t.txt"), "--format", "text", "--imatrix-tokens", str(CTX * CHUNKS),
        "-o", p("p.json"), "-t", "1", "--quiet")
    run(llama, "-m", p("m.gguf"), "-f", p("t.txt"), "-o", p("theirs.gguf"), "-c", str(CTX), "--chunks", str(CHUNKS), "-t", "1", "--output-format", "gguf", "--no-ppl")
    ours, theirs = read(p("p.json.imatrix.gguf")), read(p("theirs.gguf"))
    common = sorted(set(ours) & set(theirs))
    blocks = [n for n in theirs if n.startswith("blk.")]
    assert len(blocks) == 3 * 7 and set(blocks) <= set(ours), (sorted(set(blocks) - set(ours)), len(blocks))
    worst = max((float(np.abs(ours[n] - theirs[n]).sum() / theirs[n].sum()), n) for n in common)
    print(f"{len(common)} tensors; the worst mean difference is {worst[0]:.2e} of the mean, {worst[1]}")
    assert worst[0] < 2e-3, worst
    run(dilemma, "quantize", p("m.gguf"), "--type", "Q4_0", "--imatrix", p("theirs.gguf"), "-o", p("a.gguf"), "--quiet")
    run(dilemma, "quantize", p("m.gguf"), "--type", "Q4_0", "-o", p("b.gguf"), "--quiet")
    a, b = ({t.name: t.data.tobytes() for t in GGUFReader(p(f)).tensors} for f in ("a.gguf", "b.gguf"))
    assert a != b, "llama.cpp's importance matrix changed nothing"
print("ok")

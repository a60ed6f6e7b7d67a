# The OPT model in tests/data that `finetune --from-scratch` made: what it is, that it has learned from text, and that error feedback and
# layer-wise quantization keep more of it than rounding does.
import json, math, os, subprocess, sys, tempfile
from collections import Counter

dilemma = os.environ.get("DILEMMA", "")
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
model = os.path.join(root, "tests/data/opt-squad-4m.gguf")

def run(*args):
    r = subprocess.run([dilemma, *args], capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r

g = GGUFReader(model)
field = lambda k: g.fields[k].contents()
params = sum(int(t.n_elements) for t in g.tensors)
assert field("general.architecture") == "opt" and field("opt.do_layer_norm_before") is False
assert field("opt.word_embedding_length") < field("opt.embedding_length")
assert params <= 10_000_000 and os.path.getsize(model) <= 20_000_000, (params, os.path.getsize(model))

# Text that the project wrote and the model has not seen.
articles = json.load(open(os.path.join(root, "src/model/default_data.json")))["data"]
text = "\n".join(p["context"] for a in articles for p in a["paragraphs"])
tok = Tokenizer(models.BPE({t: i for i, t in enumerate(field("tokenizer.ggml.tokens"))}, [tuple(m.split(" ")) for m in field("tokenizer.ggml.merges")]))
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
ids = tok.encode(text).ids
entropy = -sum(n / len(ids) * math.log(n / len(ids)) for n in Counter(ids).values())

with tempfile.TemporaryDirectory() as tmp:
    p = lambda name: os.path.join(tmp, name)
    half = text.rfind("\n", 0, len(text) // 2)
    open(p("calib.txt"), "w").write(text[:half])
    open(p("judge.txt"), "w").write(text[half + 1:])
    def judge(path, *more): return json.loads(run("eval", path, "--data", p("judge.txt"), "--ctx", "256", "--chunks", "16", "--json", "--quiet", "-t", "1", *more).stdout)

    # Token frequencies of this very text, known beforehand, would leave `entropy` nats.
    e = judge(model)
    print(f"{len(ids)} tokens: {e['loss']:.3f} nats a token, by their frequencies {entropy:.3f}")
    assert e["loss"] < entropy - 0.3, (e["loss"], entropy)

    kl = {}
    for method in ("rtn", "gptq", "layerwise"):
        run("quantize", model, "--type", "MXFP4", "--method", method, "--imatrix-data", p("calib.txt"), "--imatrix-tokens", "4096", "-o", p(method), "--quiet", "-t", "1")
        kl[method] = judge(p(method), "--teacher", model)["kl_mean"]
    print("MXFP4 everywhere: " + ", ".join(f"{m} {v:.4f}" for m, v in kl.items()))
    assert kl["layerwise"] < 0.8 * kl["rtn"] and kl["gptq"] < 0.9 * kl["rtn"], kl
print("ok")

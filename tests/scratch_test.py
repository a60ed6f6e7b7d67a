# A model from nothing: its vocabulary is what plain byte-pair training gives (counted anew for every merge), training makes it predict text, a
# killed run goes on to the same file, another program reads it; shapes that make no sense are told.
import json, os, re, signal, subprocess, sys, tempfile
from collections import Counter

dilemma = os.environ.get("DILEMMA", "")
import numpy as np
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
questions = os.path.join(root, "src/model/default_data.json")
split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)

def run(*args, ok=True):
    r = subprocess.run([dilemma, *args], capture_output=True, text=True, timeout=600)
    if ok: assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r

def texts():
    """What the vocabulary is made from: each paragraph once, its questions and first answers."""
    for article in json.load(open(questions))["data"]:
        for p in article["paragraphs"]:
            yield p["context"]
            for q in p["qas"]:
                yield q["question"]
                if q["answers"] and not q.get("is_impossible"): yield " " + q["answers"][0]["text"]

def reference(n_vocab):
    """Merges by the definition: the most frequent pair; of equally frequent ones that of lower ids."""
    spelled = {b: chr(b) for b in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]}
    for b in range(256): spelled.setdefault(b, chr(256 + sum(c not in spelled or ord(spelled[c]) > 255 for c in range(b))))
    assert set(spelled.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    ids = {spelled[b]: 4 + b for b in range(256)}
    words = Counter(w for t in texts() for w, _ in split.pre_tokenize_str(t))
    words = {tuple(ids[c] for c in w): n for w, n in words.items()}
    spelling = {i: c for c, i in ids.items()}
    merges = []
    while 4 + 256 + len(merges) < n_vocab:
        pairs = Counter()
        for w, n in words.items():
            for p in zip(w, w[1:]): pairs[p] += n
        best = min(pairs, key=lambda p: (-pairs[p], p))
        new = 260 + len(merges)
        merges.append(f"{spelling[best[0]]} {spelling[best[1]]}")
        spelling[new] = spelling[best[0]] + spelling[best[1]]
        merged = Counter()
        for w, n in words.items():
            out, i = [], 0
            while i < len(w):
                both = w[i:i + 2] == best
                out.append(new if both else w[i])
                i += 1 + both
            merged[tuple(out)] += n
        words = merged
    return [spelling[i] for i in range(4, n_vocab)], merges

with tempfile.TemporaryDirectory() as tmp:
    p = lambda name: os.path.join(tmp, name)
    shape = "opt:layers=2,hidden=64,heads=2,ffn=128,proj=32,context=512,vocab=500"
    args = ["finetune", "--from-scratch", shape, "--data", questions, "--val-samples", "6", "--batch", "2", "--rate", "0.2", "--steps", "128", "-t", "1"]
    r = run(*args, "-o", p("m.gguf"))
    after, before = map(float, re.search(r"held-out loss ([\d.]+), was ([\d.]+)", r.stdout).groups())
    print(f"held-out loss {before:.3f} -> {after:.3f}")
    assert abs(before - np.log(500)) < 0.2 and after < before - 1.2, r.stdout
    assert sorted(os.listdir(tmp)) == ["m.gguf"]

    g = GGUFReader(p("m.gguf"))
    field = lambda k: g.fields[k].contents()
    tokens, merges = reference(500)
    assert field("tokenizer.ggml.tokens") == ["<s>", "<pad>", "</s>", "<unk>"] + tokens
    assert field("tokenizer.ggml.merges") == merges
    shapes = {t.name: ([int(x) for x in t.shape], t.tensor_type.name) for t in g.tensors}
    assert shapes["token_embd.weight"] == ([32, 500], "F16") and shapes["project_in.weight"] == ([32, 64], "F16") and shapes["project_out.weight"] == ([64, 32], "F16")
    assert shapes["position_embd.weight"] == ([64, 514], "F16") and shapes["blk.1.ffn_down.bias"] == ([64], "F32") and "output_norm.weight" not in shapes

    # the file's own evaluation on the same kind of text, its tokens cut as the reference library cuts them
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(field("tokenizer.ggml.tokens"))}, [tuple(m.split(" ")) for m in merges]))
    tok.pre_tokenizer = split
    text = " ".join(t for t in texts())[:6000]
    open(p("t.txt"), "w").write(text)
    e = json.loads(run("eval", p("m.gguf"), "--data", p("t.txt"), "--ctx", "128", "--json", "--quiet", "-t", "1").stdout)
    chunks = len(tok.encode(text).ids) // 128
    assert e["tokens"] == chunks * 64 - chunks, (e["tokens"], chunks)
    assert e["loss"] < before - 1.1, e

    # killed and resumed: the same file
    child = subprocess.Popen([dilemma, *args, "-o", p("cut.gguf")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in child.stderr:
        if line.startswith("step") and int(line.split()[1]) >= 40: break
    child.send_signal(signal.SIGTERM)
    child.stderr.read()
    assert child.wait() != 0 and os.path.exists(p("cut.gguf.state")) and not os.path.exists(p("cut.gguf"))
    run(*args, "--resume", "-o", p("cut.gguf"))
    assert open(p("cut.gguf"), "rb").read() == open(p("m.gguf"), "rb").read(), "a resumed run ends elsewhere"

    def fails(status, words, *more):
        r = run("finetune", "--data", questions, "-o", p("x.gguf"), "--steps", "1", *more, ok=False)
        assert r.returncode == status and words in r.stderr, f"{more}: {r.returncode}\n{r.stderr}"
        assert not os.path.exists(p("x.gguf")) and not os.path.exists(p("x.gguf.start")), os.listdir(tmp)
    fails(2, "opt:", "--from-scratch", "bert:layers=2")
    fails(2, "multiple", "--from-scratch", "opt:hidden=65,heads=2")
    fails(2, "layers is 1 to", "--from-scratch", "opt:layers=0")
    fails(2, "layers is 1 to", "--from-scratch", "opt:layers=2x")
    fails(2, "known are", "--from-scratch", "opt:depth=2")
    fails(2, "known are", "--from-scratch", "opt:norm=none")
    fails(2, "can be made", "--from-scratch", "opt:vocab=100")
    fails(15, "take more text", "--from-scratch", "opt:layers=1,hidden=32,heads=1,ffn=32,vocab=100000")
    fails(2, "--from-scratch", p("m.gguf"), "--from-scratch", shape)
    fails(2, "--from-scratch", "--lora", "4", "--from-scratch", shape)
    fails(2, "MODEL.gguf")
print("ok")

# finetune on a small random model: whole and by LoRA, nearer to the labels in the written file, adapters that llama.cpp loads with the same
# perplexity, the same after kill -9 and --resume, clear errors.
import json, os, re, signal, subprocess, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ.get("DILEMMA", ""), tiny.need_model()
import numpy as np
from gguf import GGUFReader

rng = np.random.default_rng(3)
WORDS = "the of and to in is was for on that with as by at from his it an were are which this had be or".split()
def text(n):
    """Each word is followed by one of three: there is something to learn."""
    out, at = [], 0
    for _ in range(n):
        out.append(WORDS[at])
        at = (3 * at + 1 + int(rng.integers(3))) % len(WORDS)
    return " ".join(out)

def run(*args, ok=True):
    r = subprocess.run([dilemma, *args], capture_output=True, text=True, timeout=900)
    if ok: assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r

with tempfile.TemporaryDirectory() as tmp:
    p = lambda name: os.path.join(tmp, name)
    tiny.write_model(p("m.gguf"), model, blocks=2)
    open(p("t.txt"), "w").write(text(2600))
    open(p("v.txt"), "w").write(text(900))
    loss = lambda path: json.loads(run("eval", path, "--data", p("v.txt"), "--chunks", "2", "--ctx", "256", "--json", "--quiet", "-t", "1").stdout)["loss"]
    common = ["--data", p("t.txt"), "--val", p("v.txt"), "--val-samples", "2", "--ctx", "128", "--batch", "2", "-t", "1"]
    told = lambda r: [float(x) for x in re.search(r"held-out loss ([\d.]+), was ([\d.]+)", r.stdout).groups()]
    before = loss(p("m.gguf"))

    # whole, in floats
    r = run("finetune", p("m.gguf"), "-o", p("whole.gguf"), "--steps", "16", "--rate", "0.02", *common)
    after = loss(p("whole.gguf"))
    print(f"whole: held-out loss {told(r)[1]:.3f} -> {told(r)[0]:.3f}; of the file {before:.3f} -> {after:.3f}")
    assert told(r)[0] < told(r)[1] - 1 and after < before - 1
    a, b = ({t.name: (t.tensor_type, list(t.shape)) for t in GGUFReader(p(f)).tensors} for f in ("m.gguf", "whole.gguf"))
    assert a == b

    # killed and resumed: the file of an undisturbed run
    child = subprocess.Popen([dilemma, "finetune", p("m.gguf"), "-o", p("cut.gguf"), "--steps", "16", "--rate", "0.02", *common], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in child.stderr:
        if line.startswith("step") and int(line.split()[1]) >= 5: break
    child.send_signal(signal.SIGTERM)
    child.stderr.read()
    assert child.wait() != 0 and os.path.exists(p("cut.gguf.state")) and not os.path.exists(p("cut.gguf"))
    run("finetune", p("m.gguf"), "-o", p("cut.gguf"), "--steps", "16", "--rate", "0.02", "--resume", *common)
    assert open(p("cut.gguf"), "rb").read() == open(p("whole.gguf"), "rb").read(), "a resumed run ends elsewhere"

    # beside quantized weights
    run("quantize", p("m.gguf"), "--type", "Q8_0", "-o", p("q.gguf"))
    r = run("finetune", p("q.gguf"), "--lora", "4", "-o", p("a.gguf"), "--steps", "16", "--rate", "0.03", *common)
    lora = told(r)[0]
    run("finetune", p("q.gguf"), "--adapter", p("a.gguf"), "-o", p("merged.gguf"))
    print(f"lora: held-out loss {told(r)[1]:.3f} -> {lora:.3f}; merged {loss(p('q.gguf')):.3f} -> {loss(p('merged.gguf')):.3f}")
    assert lora < told(r)[1] - 0.3 and loss(p("merged.gguf")) < loss(p("q.gguf")) - 0.3
    g = GGUFReader(p("a.gguf"))
    shapes = {t.name: list(map(int, t.shape)) for t in g.tensors}
    assert len(shapes) == 2 * 7 * 2 and shapes["blk.1.ffn_down.weight.lora_a"] == [256, 4] and shapes["blk.1.ffn_down.weight.lora_b"] == [4, 128], shapes
    again = told(run("finetune", p("q.gguf"), "--adapter", p("a.gguf"), "-o", p("b.gguf"), "--steps", "1", "--rate", "0.00001", *common))
    assert abs(again[1] - lora) < 1e-4, (again, lora)  # loaded, it is what was written

    tool = os.path.join(os.environ.get("DILEMMA_LLAMA_BIN", ""), "llama-perplexity")
    if os.path.exists(tool):
        def theirs(*args):
            for _ in range(20): # on a busy machine its last lines are often lost
                r = subprocess.run([tool, "-f", p("v.txt"), "-c", "256", "-b", "256", "--chunks", "2", "-t", "1", "--no-warmup", *args], capture_output=True, text=True, timeout=300)
                m = re.search(r"Final estimate: PPL = ([\d.]+)", r.stdout + r.stderr)
                if m: return float(m.group(1))
            raise AssertionError((args, r.returncode, r.stdout[-500:], r.stderr[-1500:]))
        beside, inside, without = theirs("-m", p("q.gguf"), "--lora", p("a.gguf")), theirs("-m", p("merged.gguf")), theirs("-m", p("q.gguf"))
        print(f"llama.cpp: perplexity {without:.2f}, with the adapter {beside:.3f}, merged {inside:.3f}; ours merged {np.exp(loss(p('merged.gguf'))):.3f}")
        assert abs(beside / inside - 1) < 0.01 and beside < 0.8 * without and abs(np.exp(loss(p("merged.gguf"))) / inside - 1) < 0.002
    else: print(f"SKIPPED: no llama-perplexity in DILEMMA_LLAMA_BIN: the adapter was not loaded by llama.cpp")

    # questions: only the answers are labels
    qa = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": " ".join(WORDS), "qas": [
        {"id": str(i), "question": f"which is {WORDS[i % 25]} ?", "answers": [{"text": "the of", "answer_start": 0}]} for i in range(24)]}]}]}
    json.dump(qa, open(p("qa.json"), "w"))
    r = run("finetune", p("m.gguf"), "--data", p("qa.json"), "-o", p("s.gguf"), "--steps", "12", "--batch", "2", "--rate", "0.02", "-t", "1")
    assert told(r)[0] < 0.5 < told(r)[1], r.stdout
    answers = json.loads(run("eval", p("s.gguf"), "--data", p("qa.json"), "--limit", "6", "--json", "--quiet", "-t", "1").stdout)
    assert answers["em"] == 1, answers  # and it has learnt to end

    # bad input
    def fails(status, words, *args):
        r = run("finetune", *args, "-o", p("x.gguf"), ok=False)
        assert r.returncode == status and words in r.stderr and not os.path.exists(p("x.gguf")), f"{args}: {r.returncode}\n{r.stderr}"
    fails(4, "only floats train whole", p("q.gguf"), *common)
    fails(2, "--data", p("q.gguf"))
    open(p("none.jsonl"), "w").write('{"prompt": "a", "completion": ' + json.dumps("the " * 700) + '}\n')
    fails(15, "fits", p("m.gguf"), "--data", p("none.jsonl"), "--ctx", "64")
    fails(3, "no LoRA adapter", p("m.gguf"), "--adapter", p("q.gguf"))
    tiny.write_model(p("other.gguf"), model, blocks=2, width=64, heads=2, kv_heads=1)
    fails(3, "blk.0", p("other.gguf"), "--adapter", p("a.gguf"))
    tiny.write_model(p("nan.gguf"), model, blocks=2, poison="blk.1.ffn_up")
    fails(15, "not finite", p("nan.gguf"), "--data", p("t.txt"), "--steps", "1", "--ctx", "64")
print("ok")

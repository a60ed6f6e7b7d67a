# distill on a small random model: nearer to the teacher on held-out text and in the written file, the same after kill -9 and --resume,
# never a worse file, clear errors.
import json, os, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ.get("DILEMMA", ""), tiny.need_model()
import numpy as np
from gguf import GGUFReader

V = 2048
rng = np.random.default_rng(1)
WORDS = "the of and to in is was for on that with as by at from his it an were are which this had be or".split()
def random_text(n): return " ".join(WORDS[int(rng.integers(len(WORDS)))] for _ in range(n))
def write_model(path, poison=None, vocab=V): tiny.write_model(path, model, vocab=vocab, width=128, blocks=4, poison=poison)

def run(*args, ok=True):
    r = subprocess.run([dilemma, *args], capture_output=True, text=True, timeout=900)
    if ok: assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r

with tempfile.TemporaryDirectory() as tmp:
    p = lambda name: os.path.join(tmp, name)
    write_model(p("m.gguf"))
    open(p("t.txt"), "w").write(random_text(2600))
    open(p("v.txt"), "w").write(random_text(700))
    judge = lambda path: json.loads(run("eval", path, "--teacher", p("m.gguf"), "--data", p("v.txt"), "--chunks", "1", "--json", "--quiet").stdout)["kl_mean"]
    common = ["--teacher", p("m.gguf"), "--data", p("t.txt"), "--val", p("v.txt"), "--val-chunks", "1", "--chunks", "4", "--steps", "8", "--rate", "0.004", "-t", "2"]

    run("quantize", p("m.gguf"), "--type", "Q4_1", "-o", p("s.gguf"))
    run("distill", "--student", p("s.gguf"), "-o", p("whole.gguf"), *common)
    before, after = judge(p("s.gguf")), judge(p("whole.gguf"))
    print(f"divergence {before:.5f} -> {after:.5f}")
    assert after < 0.9 * before, f"the divergence went from {before} to {after}"
    a, b = ({t.name: t for t in GGUFReader(p(f)).tensors} for f in ("s.gguf", "whole.gguf"))
    assert {n: (t.tensor_type, list(t.shape)) for n, t in a.items()} == {n: (t.tensor_type, list(t.shape)) for n, t in b.items()}
    x, y = (s["blk.1.ffn_up.weight"].data.reshape(-1, 20) for s in (a, b))
    assert (x[:, 4:] == y[:, 4:]).all() and (x[:, :4] != y[:, :4]).any(), "codes stay, scales and minima move"
    assert not os.path.exists(p("whole.gguf.state"))

    # ended, killed, resumed: the file is the one of an undisturbed run, bit by bit
    for after, how in ((2, signal.SIGTERM), (4, signal.SIGKILL)):
        child = subprocess.Popen([dilemma, "distill", "--student", p("s.gguf"), "-o", p("cut.gguf"), *common, "--resume"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for line in child.stderr:
            if line.startswith("step") and int(line.split()[1]) >= after: break
        child.send_signal(how)
        child.stderr.read()
        status = child.wait()
        assert status != 0 and not os.path.exists(p("cut.gguf")), status
        assert os.path.exists(p("cut.gguf.state")), "an ended run keeps its state"
    r = run("distill", "--student", p("s.gguf"), "-o", p("cut.gguf"), *common, "--resume")
    assert "going on after step" in r.stderr, r.stderr
    assert open(p("cut.gguf"), "rb").read() == open(p("whole.gguf"), "rb").read(), "a resumed run ends elsewhere"

    # questions: compared at the answers alone, judged by eval, which asks one question after the other
    def questions(path, n):
        qa = lambda c: {"id": "q", "question": random_text(5), "answers": [{"text": " ".join(c.split()[3:6]), "answer_start": 0}]}
        paragraphs = [{"context": c, "qas": [qa(c) for _ in range(3)]} for c in (random_text(40) for _ in range(n))]
        json.dump({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}, open(path, "w"))
    questions(p("t.json"), 8), questions(p("v.json"), 4)
    answers = lambda path: json.loads(run("eval", path, "--teacher", p("m.gguf"), "--data", p("v.json"), "--no-answers", "--json", "--quiet").stdout)["kl_mean"]
    asked = ["--student", p("s.gguf"), "-o", p("asked.gguf"), *common, "--data", p("t.json"), "--val", p("v.json"), "--val-chunks", "4", "--answers", "--batch", "2"]
    r = run("distill", *asked)
    before, after = answers(p("s.gguf")), answers(p("asked.gguf"))
    print(f"at answers {before:.5f} -> {after:.5f}: {r.stdout.strip()}")
    assert after < 0.9 * before, f"the divergence at answers went from {before} to {after}"

    # a step so long that it only does harm: the file is as it was given
    r = run("distill", "--student", p("s.gguf"), "-o", p("same.gguf"), *common, "--rate", "0.9", "--steps", "2")
    a, b = ({t.name: t.data.tobytes() for t in GGUFReader(p(f)).tensors} for f in ("s.gguf", "same.gguf"))
    assert "no step was better" in r.stdout and a == b, r.stdout

    # bad input: a clear error, and nothing under the final name
    def fails(status, words, *args):
        r = run("distill", *args, "-o", p("x.gguf"), ok=False)
        assert r.returncode == status and words in r.stderr and not os.path.exists(p("x.gguf")), f"{args}: {r.returncode}\n{r.stderr}"
    write_model(p("more.gguf"), vocab=V + 64)
    fails(4, "vocabulary", "--teacher", p("more.gguf"), "--student", p("s.gguf"), "--data", p("t.txt"))
    fails(4, "no student", "--teacher", model, "--student", p("s.gguf"), "--data", p("t.txt"))
    open(p("short.txt"), "w").write("too short")
    fails(15, "tokens", "--teacher", p("m.gguf"), "--student", p("s.gguf"), "--data", p("short.txt"), "--format", "text")
    write_model(p("nan.gguf"), poison="blk.2.ffn_up")
    fails(15, "not finite", "--teacher", p("nan.gguf"), "--student", p("s.gguf"), "--data", p("t.txt"), "--steps", "1", "--chunks", "2")
    open(p("x.gguf.state"), "wb").write(b"DILDST1\0" + bytes(100))
    fails(3, "remove it", *common, "--student", p("s.gguf"), "--resume")
print("ok")

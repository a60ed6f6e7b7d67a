# `dilemma eval` against llama-perplexity on the same files: perplexity within 0.1 %, divergence as --kl-divergence has it; and what
# `dilemma quantize` writes gives the same perplexity in llama.cpp as in our engine, within 0.2 %.
import json, os, re, subprocess, sys, tempfile

def need(name):
    path = os.environ.get(name, "")
    if not path or not os.path.exists(path):
        print(f"SKIPPED: {name} is not there ({path!r}): eval was not compared with llama-perplexity")
        sys.exit(77)
    return path

dilemma, model, llama = need("DILEMMA"), need("DILEMMA_TEST_MODEL"), os.path.join(need("DILEMMA_LLAMA_BIN"), "llama-perplexity")
if not os.path.exists(llama):
    print("SKIPPED: llama-perplexity is not there")
    sys.exit(77)
CHUNKS = 2

def run(*args):
    r = subprocess.run(args, capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r.stdout + r.stderr

def ours(path, text, *more):
    r = subprocess.run([dilemma, "eval", path, "--data", text, "--format", "text", "--chunks", str(CHUNKS), "--json", "--quiet", *more],
                       capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)

def theirs(path, text, *more):
    out = run(llama, "-m", path, "-f", text, "-c", "512", "--chunks", str(CHUNKS), *more)
    return out, float(re.search(r"Final estimate: PPL = ([0-9.]+)|Mean PPL\(Q\) +: +([0-9.]+)", out).group(1) or 0)

def near(what, a, b, rel, absolute=0.0):
    assert abs(a - b) <= max(rel * abs(b), absolute), f"{what}: ours {a}, llama.cpp {b}, allowed {rel:.2%}"
    print(f"{what}: ours {a:.6g}, llama.cpp {b:.6g}")

with tempfile.TemporaryDirectory() as tmp:
    text = os.path.join(tmp, "text.txt")
    data = os.path.join(os.environ.get("DILEMMA_TEST_DATA", ""), "wikitext-2-valid.txt")
    if os.path.exists(data):
        body = open(data, encoding="utf-8").read()[:24000]
    else:
        print("wikitext-2-valid.txt is not there: judging on the project's own pages")
        root = os.environ["DILEMMA_SOURCE"]
        body = "".join(open(os.path.join(root, f), encoding="utf-8").read() for f in ("docs/FORMATS.md", "include/dilemma/engine.h", "NOTICE"))
    open(text, "w", encoding="utf-8").write(body)

    mine = ours(model, text)
    _, ppl = theirs(model, text)
    near("perplexity of the model as given", mine["perplexity"], ppl, 0.001)
    assert mine["kl_mean"] is None and mine["em"] is None and mine["tokens"] == CHUNKS * 255

    base = os.path.join(tmp, "base.kld")
    run(llama, "-m", model, "-f", text, "-c", "512", "--chunks", str(CHUNKS), "--kl-divergence-base", base)
    for kind in ("Q4_0", "MXFP4"):
        student = os.path.join(tmp, kind + ".gguf")
        run(dilemma, "quantize", model, "--type", kind, "-o", student, "--quiet")
        mine = ours(student, text, "--teacher", model)
        _, ppl = theirs(student, text)
        near(f"perplexity of {kind}", mine["perplexity"], ppl, 0.002)
        out = run(llama, "-m", student, "-f", text, "-c", "512", "--chunks", str(CHUNKS), "--kl-divergence-base", base, "--kl-divergence")
        near(f"{kind}: mean KL", mine["kl_mean"], float(re.search(r"Mean +KLD: +([0-9.]+)", out).group(1)), 0.02)
        near(f"{kind}: 99th percentile", mine["kl_p99"], float(re.search(r"99\.0% +KLD: +([0-9.]+)", out).group(1)), 0.05)
        near(f"{kind}: same top", 100 * mine["top1_agreement"], float(re.search(r"Same top p: +([0-9.]+)", out).group(1)), 0, 0.8)

    same = ours(model, text, "--teacher", model)
    assert same["kl_mean"] == 0 and same["top1_agreement"] == 1, same
print("ok")

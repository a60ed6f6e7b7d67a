# profile, quantize and eval on a small random model: real bytes, resume after kill -9, whole or not at all, clear errors.
import json, os, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ.get("DILEMMA", ""), tiny.need_model()
import numpy as np
from gguf import GGUFReader

D, L, V = 128, 4, 2048
rng = np.random.default_rng(1)
def write_model(path, poison=None, vocab=V): tiny.write_model(path, model, vocab=vocab, width=D, blocks=L, poison=poison)

def run(*args, ok=True):
    r = subprocess.run([dilemma, *args], capture_output=True, text=True, timeout=900)
    if ok: assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r

def tensor_bytes(path):
    seen = {t.name: (int(t.n_bytes), t.tensor_type.name) for t in GGUFReader(path).tensors}
    return sum(b for b, _ in seen.values()), seen

with tempfile.TemporaryDirectory() as tmp:
    p = lambda name: os.path.join(tmp, name)
    write_model(p("m.gguf"))
    words = "the of and to in is was for on that with as by at from his it an were are which this had be or".split()
    text = " ".join(words[int(rng.integers(len(words)))] for _ in range(6000))
    open(p("t.txt"), "w").write(text)
    nodes = [{"name": n, "address": "", "memory_bytes": 1 << 30, "threads": 1, "device": "CPU", "throttle": f} for n, f in (("a", 1.0), ("b", 2.0))]
    links = [{"from": a, "to": b, "rtt_sec": 0.02, "latency_sec": 0.01, "bytes_per_sec": 1e7} for a, b in (("a", "b"), ("b", "a"))]
    json.dump({"version": 1, "nodes": nodes, "links": links, "entry": "a"}, open(p("c.json"), "w"))

    # profile, killed twice, resumed
    args = [dilemma, "profile", p("m.gguf"), "--time-here", "--cluster", p("c.json"), "--data", p("t.txt"), "-o", p("p.json"), "--imatrix-tokens", "2048", "-t", "1"]
    for kill in range(2):
        child = subprocess.Popen([*args, "--resume"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        def lines(): return open(p("p.json.part")).read().count("\n") if os.path.exists(p("p.json.part")) else 0
        before, start = lines(), time.monotonic()
        while child.poll() is None and lines() < before + 12 and time.monotonic() - start < 300: time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not os.path.exists(p("p.json")), "a killed profile left a file under its final name"
    r = run(*args[1:], "--resume")
    assert "going on after" in r.stderr, r.stderr
    assert not os.path.exists(p("p.json.part"))
    prof = json.load(open(p("p.json")))
    assert len(prof["layers"]) == L + 2 and prof["nodes"] == ["a", "b"] and prof["data"]["tokens"] >= 1024
    for l in prof["layers"]:
        assert len(l["levels"]) >= 6, (l["name"], len(l["levels"]))
        for q in l["levels"]:
            assert q["bytes"] > 0 and q["damage"]["kl"] >= 0 and q["damage"]["weight"] >= 0
            assert min(q["decode_sec"]) > 0 and min(q["prefill_sec"]) > 0
            assert abs(q["decode_sec"][1] / q["decode_sec"][0] - 2) < 1e-6, "throttle"
    assert prof["method"] == "layerwise" and prof["alone_method"] == "gptq" and prof["data"]["held_to"] - prof["data"]["held_from"] >= 1152, prof["data"]
    assert [t["method"] for t in prof["students"]] == ["gptq"] * 3 and all(t["kl"] > 0 and t["alone"] > 0 for t in prof["students"]), prof["students"]
    blk = prof["layers"][2]["levels"]
    cheap, dear = min(blk, key=lambda q: q["bytes"]), max(blk, key=lambda q: q["bytes"])
    assert cheap["damage"]["kl"] > dear["damage"]["kl"] and any(t.startswith(("IQ2", "IQ3", "Q2_K", "Q3_K")) for q in blk for t in q["types"].values())

    # a plan of every layer's k-th level: quantize writes exactly the bytes that the profile announced
    layers = [dict(layer=i, name=l["name"], node="a", level=l["levels"][k]["name"], types=l["levels"][k]["types"], bytes=l["levels"][k]["bytes"])
              for i, l in enumerate(prof["layers"]) for k in [min(4 + i % 2, len(l["levels"]) - 1) if 0 < i <= L else 2]]
    total = sum(l["bytes"] for l in layers[:-1]) + 4 * D  # the tied table once, and the final norm
    plan = {"version": 1, "model": prof["model"], "entry": "a", "context": 2048, "sequences": 1, "tokens_in": 8, "tokens_out": 8, "token_sec": 1,
            "prefill_sec": 1, "total_sec": 8, "bound_sec": 8, "gap": 0, "solver": "test", "solve_sec": 0, "ratio_to_fp32": 0.13, "predicted_damage": 0.1,
            "damage_measure": "kl", "layers": layers,
            "stages": [dict(node="a", first_layer=0, last_layer=L + 1, bytes=total, compute_sec=1, hop_sec=0)]}
    json.dump(plan, open(p("plan.json"), "w"))
    for method in ("rtn", "gptq", "layerwise"):
        out = p(f"s-{method}.gguf")
        more = ["--imatrix", p("p.json.imatrix.gguf")] if method == "rtn" else ["--method", method, "--imatrix-data", p("t.txt"), "--imatrix-tokens", "2048", "-t", "1"]
        told = json.loads(run("quantize", p("m.gguf"), "--plan", p("plan.json"), "-o", out, "--json", *more).stdout)
        assert told["bytes"] == total and told["method"] == method and told["tensors_changed"] == 7 * L + 1, told
        got, seen = tensor_bytes(out)
        assert got == total, f"{method}: {got} bytes in the file, {total} in the profile"
        for i, l in enumerate(layers):
            for role, t in l["types"].items():
                name = f"blk.{i - 1}.{role}.weight" if 0 < i <= L else f"{role}.weight"
                assert seen[name][1] == t, (name, seen[name], t)
        e = json.loads(run("eval", out, "--teacher", p("m.gguf"), "--data", p("t.txt"), "--chunks", "2", "--json", "--quiet", "-t", "1").stdout)
        assert e["bytes"] == total, (e["bytes"], total)
        assert abs(e["ratio_to_fp32"] - total / 4 / prof["model"]["n_params"]) < 1e-9, (e["ratio_to_fp32"], total, prof["model"]["n_params"])
        assert set(e) == set("tokens loss perplexity kl_mean kl_stderr kl_p99 kl_max teacher_loss top1_agreement em f1 bytes bits_per_weight ratio_to_fp32".split())
        print(f"{method}: KL {e['kl_mean']:.4f}")
        if method == "rtn": rtn = e["kl_mean"]
        if method == "layerwise": assert e["kl_mean"] < rtn, "error feedback did not help"

    # the student judged on text kept apart: the profile learns from it, and then predicts it
    json.dump(prof, open(p("pc.json"), "w"))
    more = ["--method", "layerwise", "--imatrix-data", p("t.txt"), "--imatrix-tokens", "3072", "-t", "1"]
    run("quantize", p("m.gguf"), "--plan", p("plan.json"), "-o", p("all.gguf"), *more)
    r = run("quantize", p("m.gguf"), "--plan", p("plan.json"), "--profile", p("pc.json"), "-o", p("c.gguf"), *more)
    assert "tokens kept apart" in r.stderr, r.stderr
    told = json.load(open(p("pc.json")))
    last = told["students"][-1]
    share = lambda pr, key: sum(next(q for q in pl["levels"] if q["name"] == l["level"])["damage"][key] for pl, l in list(zip(pr["layers"], layers))[:-1])
    assert last["method"] == "layerwise" and last["tokens"] >= 1053 and abs(share(told, "kl") - last["kl"]) < 1e-6 * last["kl"], (share(told, "kl"), last)
    assert abs(share(told, "alone") - last["alone"]) < 1e-6 * last["alone"] and share(told, "alone") == share(prof, "alone")
    print(f"layerwise: predicted {share(prof, 'kl'):.4f}, measured {last['kl']:.4f}")
    assert open(p("c.gguf"), "rb").read() != open(p("all.gguf"), "rb").read(), "calibrated on the text kept apart"

    # the layers timed one by one: every layer is of some kind, and their seconds are there
    b = json.loads(run("bench", p("s-rtn.gguf"), "-p", "16", "-n", "8", "-t", "1", "-r", "1", "--layers", "--json", "--quiet").stdout)["results"][0]["layers"]
    assert sum(k["count"] for k in b["kinds"]) == L + 2 and len(b["kinds"]) == 4, b
    assert abs(b["decode_sec"] - sum(k["count"] * k["decode_sec"] for k in b["kinds"])) < 1e-9 and b["decode_sec"] > 0, b

    # types that do not fit fall back, loudly
    r = run("quantize", p("m.gguf"), "--type", "Q4_K", "-o", p("f.gguf"))
    assert "do not take Q4_K" in r.stderr and tensor_bytes(p("f.gguf"))[1]["blk.0.ffn_down.weight"][1] == "Q4_K"
    r = run("quantize", p("f.gguf"), "--type", "Q8_0", "-o", p("ff.gguf"))
    assert "quantized already" in r.stderr

    # bad input: a clear error, nothing under the final name
    def fails(status, words, *args, gone=None):
        r = run(*args, ok=False)
        assert r.returncode == status and words in r.stderr, f"{args}: {r.returncode} (wanted {status})\n{r.stderr}"
        if gone: assert not os.path.exists(gone), gone
    write_model(p("nan.gguf"), poison="blk.2.ffn_up")
    fails(15, "blk.2.ffn_up.weight", "quantize", p("nan.gguf"), "--type", "Q4_0", "-o", p("x.gguf"), gone=p("x.gguf"))
    fails(15, "", "eval", p("nan.gguf"), "--data", p("t.txt"))
    fails(15, "", "profile", p("nan.gguf"), "--time-here", "--cluster", p("c.json"), "--data", p("t.txt"), "-o", p("x.json"), gone=p("x.json"))
    open(p("short.txt"), "w").write("too short")
    fails(15, "tokens", "eval", p("m.gguf"), "--data", p("short.txt"), "--format", "text")
    fails(15, "tokens", "profile", p("m.gguf"), "--time-here", "--cluster", p("c.json"), "--data", p("short.txt"), "-o", p("x.json"), gone=p("x.json"))
    write_model(p("more.gguf"), vocab=V + 64)
    fails(4, "vocabulary", "eval", p("more.gguf"), "--teacher", p("m.gguf"), "--data", p("t.txt"))
    fails(3, "another file", "quantize", p("f.gguf"), "--plan", p("plan.json"), "-o", p("x.gguf"), gone=p("x.gguf"))
    fails(6, "", "quantize", p("m.gguf"), "--type", "Q4_0", "-o", "/dev/full/x.gguf")
    fails(2, "", "quantize", p("m.gguf"), "--type", "Q4_Z", "-o", p("x.gguf"))
    limited = subprocess.run(["bash", "-c", f'ulimit -f 100; trap "" XFSZ; exec "{dilemma}" quantize "{p("m.gguf")}" --type Q8_0 -o "{p("x.gguf")}"'],
                             capture_output=True, text=True, timeout=300)
    assert limited.returncode == 6, f"disk full: {limited.returncode} {limited.stderr}"
    assert not [f for f in os.listdir(tmp) if f.startswith("x.") and f != "x.json.part"], os.listdir(tmp)  # the journal may stay
print("ok")

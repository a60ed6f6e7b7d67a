#!/usr/bin/env python3
"""Speculation on a real tokenizer and real kernels: with --deterministic every text is bit for bit the one without, greedy and sampled, alone and
beside others; the answer says how many tokens were guessed, and how many came."""
import json, os, subprocess, sys, tempfile, threading, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ["DILEMMA"], tiny.need_model()
QUICK = os.environ.get("DILEMMA_TEST_QUICK")
fails = []


def check(what, good, *detail):
    print(("ok      " if good else "FAILED  ") + what, *([] if good else detail), flush=True)
    if not good: fails.append(what)


def post(url, body):
    return json.load(urllib.request.urlopen(urllib.request.Request(url + "/completions", json.dumps(body).encode()), timeout=120))


def answers(path, how, bodies, at_once):
    p = subprocess.Popen([dilemma, "serve", "--quiet", "--model", path, "--deterministic", "--threads", "1", "--slots", "3", "--context", "256", "--port", "0", "--speculate", how],
                         stdout=subprocess.PIPE, text=True)
    try:
        url, out = p.stdout.readline().strip(), [None] * len(bodies)
        def ask(i): out[i] = post(url, bodies[i])
        for first in range(0, len(bodies), at_once):
            t = [threading.Thread(target=ask, args=(i,)) for i in range(first, min(first + at_once, len(bodies)))]
            for x in t: x.start()
            for x in t: x.join()
        with urllib.request.urlopen(url[:-3] + "/metrics") as r: metrics = r.read().decode()
        return out, metrics
    finally:
        p.terminate()
        p.wait(30)


with tempfile.TemporaryDirectory() as tmp:
    path = os.path.join(tmp, "tiny.gguf")
    tiny.write_model(path, model, blocks=4)
    starts = ["one two three one two three one two", "The keeper lit the lamp. The keeper lit the", "def f(x):\n    return x\n\ndef g(x):\n    return", "a b a b a b a",
              "Paris is in France. Rome is in Italy. Paris is", "0 1 2 3 4 5 6 7 8 9 0 1 2 3", "to be or not to be, that is the question: to be or"]
    bodies = [{"prompt": s, "max_tokens": 24, "temperature": t, "seed": 7} for s in (starts[:3] if QUICK else starts) for t in (0, 0.9)]
    texts = lambda a: [x["choices"][0]["text"] for x in a]
    plain, _ = answers(path, "off", bodies, 1)
    check("without: nothing is guessed", all(a["timings"]["guessed_tokens"] == 0 for a in plain))
    for how, at_once in (("5", 1), ("15", 3), ("auto", 1)):
        ahead, metrics = answers(path, how, bodies, at_once)
        guessed, came = (sum(a["timings"][k] for a in ahead) for k in ("guessed_tokens", "accepted_tokens"))
        check("--speculate %s, %d at once: the same %d texts (%d guessed, %d came)" % (how, at_once, len(bodies), guessed, came), texts(ahead) == texts(plain),
              [(a, b) for a, b in zip(texts(ahead), texts(plain)) if a != b][:2])
        check("both right and wrong guesses were met, and /metrics counts them", how != "5" or (0 < came < guessed and "guessed_tokens_total %d" % guessed in metrics),
              guessed, came, [l for l in metrics.splitlines() if "guess" in l])
    r = subprocess.run([dilemma, "serve", "--model", path, "--speculate", "99"], capture_output=True, text=True, timeout=30)
    check("a depth beyond the limit is refused", r.returncode == 2 and "--speculate" in r.stderr, r.stderr)
print("%d failed" % len(fails) if fails else "all good")
sys.exit(1 if fails else 0)

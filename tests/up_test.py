#!/usr/bin/env python3
"""`dilemma up` over two nodes with keys on loopback: from running nodes to an answer, again, and what goes wrong on the way."""
import json, os, re, signal, subprocess, sys, tempfile, time, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ["DILEMMA"], tiny.need_model()
fails, running = [], []

def check(what, good, *detail):
    print(("ok      " if good else "FAILED  ") + what, *([] if good else detail), flush=True)
    if not good: fails.append(what)

def run(*args): return subprocess.run([dilemma, *args], capture_output=True, text=True, timeout=600)

def start(*args):
    child = subprocess.Popen([dilemma, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.append(child)
    return child

def stop(child, sig=signal.SIGTERM):
    child.send_signal(sig)
    try: status = child.wait(30)
    except subprocess.TimeoutExpired: child.kill(); child.wait(); status = "does not end"
    return status

def complete(url, prompt):
    body = json.dumps({"prompt": prompt, "max_tokens": 12, "temperature": 0}).encode()
    return json.load(urllib.request.urlopen(urllib.request.Request(url + "/completions", body), timeout=120))["choices"][0]["text"]

def serving(child):
    """The lines that `up` said and the address it serves at."""
    said = []
    for line in child.stdout:
        said.append(line)
        if line.startswith("http"): return said, line.strip()
    return said, None

with tempfile.TemporaryDirectory() as tmp:
    p = lambda *name: os.path.join(tmp, *name)
    tiny.write_model(p("tiny.gguf"), model)
    assert run("keys", "cluster", p("keys"), "a", "b").returncode == 0
    def node(name, memory, port=0):
        child = start("node", "--listen", f"127.0.0.1:{port}", "--memory", memory, "-t", "1", "--key", p("keys", name + ".key"), "--allow", p("keys", "allowed"),
                      "--cache", p("cache-" + name))
        return child, re.search(r"127\.0\.0\.1:(\d+)", child.stdout.readline()).group(0)
    try:
        # scratch alone takes over a megabyte: neither holds the whole
        (a, at_a), (b, at_b) = node("a", "1550k"), node("b", "1650k")
        up = ["up", "--model", p("tiny.gguf"), "--dir", p("d"), "--keys", p("keys"), "--node", f"a={at_a}", f"b={at_b}", "--max-ratio", "0.1275", "--context", "512",
              "--tokens-in", "32", "--tokens-out", "32", "--port", "0", "-t", "1"]
        child = start(*up)
        said, url = serving(child)
        check("up serves", url is not None, said, child.poll())
        if url is None: print(child.stderr.read()[-3000:]); sys.exit(1)
        check("every step in a line", [s.split()[0] for s in said[:-1]] == ["probe", "profile", "plan", "quantize", "measure"], said)
        plan = json.load(open(p("d", "plan.json")))
        check("over both nodes", {s["node"] for s in plan["stages"]} == {"a", "b"}, plan["stages"])
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if urllib.request.urlopen(url[:-3] + "/health", timeout=10).status == 200: break
            except urllib.error.HTTPError: time.sleep(0.1)
        prompts = ["The capital of France is", "once", "1 2 3 4"]
        answers = [complete(url, q) for q in prompts]
        alone = [json.loads(run("run", p("d", "student.gguf"), "-p", q, "-n", "12", "--temp", "0", "-t", "1", "--json").stdout)["text"] for q in prompts]
        check("answers are those of the student in one process", answers == alone, answers, alone)
        check("Ctrl-C ends it in order", stop(child, signal.SIGINT) == 0, child.returncode)

        child = start(*up)
        said, url = serving(child)
        check("the second time all is kept", url and all("(kept)" in s for s in said[:-1]), said)
        if url: check("and answers the same", complete(url, prompts[0]) == answers[0])
        stop(child)

        r = run(*[w if w != f"b={at_b}" else "b=127.0.0.1:1" for w in up], "--no-serve")
        check("a node that is not there is named", r.returncode != 0 and "127.0.0.1:1" in r.stderr, r.returncode, r.stderr)
        run("keys", "cluster", p("keys2"), "a", "b")
        r = run(*[w if w != p("keys") else p("keys2") for w in up], "--no-serve")
        check("a stranger's keys are refused", r.returncode != 0, r.returncode, r.stderr)
        check("in time and in words", "127.0.0.1" in r.stderr or "node a" in r.stderr, r.stderr)
        r = run(*up, "--max-kl", "0", "--no-serve")
        check("a budget that cannot be met is told", r.returncode == 9 and "least damage" in r.stderr, r.returncode, r.stderr)
        r = run(*up[:-4], "--port", "0", "--entry", "c")
        check("no such entry", r.returncode != 0 and "c" in r.stderr, r.stderr)
        r = run(*up, "--speculate", "3:0.7", "--no-serve")
        plan, prof = (json.load(open(p("d", f))) for f in ("plan.json", "profile.json"))
        check("a plan that counts with guesses", r.returncode == 0 and plan.get("speculate") == {"guesses": 3, "acceptance": 0.7}, r.stderr, plan.get("speculate"))
        check("and with passes as they were measured", all(set(q["pass_sec"]) == {"2", "4", "8", "16"} and min(q["pass_sec"]["16"]) > 0 for l in prof["layers"] for q in l["levels"]))
        r = run(*up, "--speculate", "3:1.7", "--no-serve")
        check("a chance above one is none", r.returncode == 2 and "--speculate" in r.stderr, r.returncode, r.stderr)
        check("nodes end in order", stop(a) == 0 and stop(b, signal.SIGINT) == 0, a.returncode, b.returncode)
    finally:
        for c in running:
            if c.poll() is None: c.kill(); c.wait()
print(f"{len(fails)} failed" if fails else "all good")
sys.exit(1 if fails else 0)

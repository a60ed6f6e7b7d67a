#!/usr/bin/env python3
"""Faults drawn from a seed on real processes while texts are written: every text is the one without faults, no request ever fails.

  FAULTS=200 SEED=7 python tests/keeps_going_test.py        a soak; `make soak`

Four nodes in network namespaces where those are possible (else on loopback, without the faults of links), each too small for the whole
model: kill -9 and a new start, SIGSTOP and SIGCONT, links down, lost packets, a node that computes in bursts. A line for each fault
says what happened when; a last line sums up as JSON."""
import json, os, random, signal, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ["DILEMMA"], tiny.need_model()
lab = os.environ.get("DILEMMA_NETLAB_BIN", "")
n_faults = int(os.environ.get("FAULTS", 5 if os.environ.get("DILEMMA_TEST_QUICK") else 12))
seed, pace = int(os.environ.get("SEED", 1)), float(os.environ.get("PACE", 0.6))  # PACE below 1: shorter and closer faults
names, memory = ["a", "b", "c", "d"], os.environ.get("NODE_MEMORY", "6M")
rng = random.Random(seed)
fails, procs, started = [], {}, time.time()

def check(what, good, *detail):
    print(("ok      " if good else "FAILED  ") + what, *([] if good else detail), flush=True)
    if not good: fails.append(what)

def say(text): print("%7.2f  %s" % (time.time() - started, text), flush=True)

def inside(node): return [lab, "exec", "--lab", labname, node, "--"] if labname else []

def start_lab(path):
    json.dump({"nodes": names, "default": {"delay_ms": 1, "rate_mbit": 1000}, "seed": seed}, open(path, "w"))
    if not lab: return None
    name = "keep-%d" % os.getpid()
    r = subprocess.run([lab, "up", path, "--lab", name], capture_output=True, text=True)
    return name if r.returncode == 0 else None

def set_link(a, b, *what):
    for _ in range(50): # the lab may be slow to answer on a busy machine
        if subprocess.run([lab, "set", "--lab", labname, a, b, *what], capture_output=True).returncode == 0: return
        time.sleep(0.1)
    sys.exit("netlab does not answer")

CLIENT = r'''
import json, sys, time, urllib.error, urllib.request
url, body = sys.argv[1], json.loads(sys.argv[2])
text, error, n = "", None, 0
print("hello", flush=True)
try:
    head = {"Idempotency-Key": body.pop("key")} if "key" in body else {}
    for line in urllib.request.urlopen(urllib.request.Request(url + "/completions", json.dumps(body).encode(), head), timeout=900):
        if not line.startswith(b"data: {"): continue
        e = json.loads(line[6:])
        if "error" in e: error = e["error"]["message"]; break
        piece = e["choices"][0]["text"]
        if piece: print(json.dumps(piece), flush=True)
except urllib.error.HTTPError as e: error = e.read().decode()
except OSError as e: error = repr(e)
print(json.dumps({"error": error}), flush=True)
'''

class Stream(threading.Thread):
    """One request; when[i] is the moment of the i-th piece."""
    def __init__(self, url, body):
        super().__init__(daemon=True)
        self.text, self.error, self.when = "", "cut off", []
        for _ in range(20): # the lab lets one in at a time
            self.child = subprocess.Popen([*inside("a"), sys.executable, "-c", CLIENT, url, json.dumps({**body, "stream": True})], stdout=subprocess.PIPE, text=True)
            if self.child.stdout.readline(): break
            self.child.wait(); time.sleep(0.1)
        self.start()
    def run(self):
        for line in self.child.stdout:
            got = json.loads(line)
            if isinstance(got, str): self.text += got; self.when.append(time.time())
            else: self.error = got["error"]
        self.child.wait()

def start_node(name, port=0):
    address = ("10.77.0.%d:7100" % (names.index(name) + 1)) if labname else "127.0.0.1:%d" % port
    for _ in range(20):
        child = subprocess.Popen([*inside(name), dilemma, "node", "--listen", address, "--memory", memory, "-t", "1", "--key", f"{tmp}/keys/{name}.key", "--throttle", "4",
                                  "--allow", f"{tmp}/keys/allowed", "--cache", f"{tmp}/cache-{name}"], stdout=subprocess.PIPE, stderr=open(f"{tmp}/{name}.log", "a"), text=True)
        line = child.stdout.readline()
        if "listening on" in line: break
        child.wait(); time.sleep(0.1)
    else: sys.exit("node %s: %s %s" % (name, line, open(f"{tmp}/{name}.log").read()[-500:]))
    procs[name] = child
    return line.split()[2]

def health():
    code = ("import urllib.request, urllib.error, sys\ntry: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n"
            "except urllib.error.HTTPError as e: print(e.read().decode())")
    out = subprocess.run([*inside("a"), sys.executable, "-c", code, url[:-3] + "/health"], capture_output=True, text=True).stdout
    return json.loads(out) if out.strip() else {"status": "no answer"}

# --- faults: each returns what ends it -------------------------------------------------------------------------------------------------

def kill(name):
    procs[name].kill(); procs[name].wait()
    def end(): start_node(name, port_of.get(name, 0))
    return end

def stop(name):
    procs[name].send_signal(signal.SIGSTOP)
    return lambda: procs[name].send_signal(signal.SIGCONT)

def bursts(name):
    over = threading.Event()
    def run():
        while not over.is_set():
            procs[name].send_signal(signal.SIGSTOP); time.sleep(0.09); procs[name].send_signal(signal.SIGCONT); time.sleep(0.01)
    t = threading.Thread(target=run, daemon=True); t.start()
    def end(): over.set(); t.join()
    return end

def cable(name):
    for o in names:
        if o != name: set_link(name, o, "down"); set_link(o, name, "down")
    def end():
        for o in names:
            if o != name: set_link(name, o, "up"); set_link(o, name, "up")
    return end

def one_link(name):
    other = rng.choice([o for o in names if o not in (name, "a")])
    set_link(name, other, "down"); set_link(other, name, "down")
    def end(): set_link(name, other, "up"); set_link(other, name, "up")
    return end

def loss(name):
    for o in names:
        if o != name: set_link(name, o, "loss=5%"); set_link(o, name, "loss=5%")
    def end():
        for o in names:
            if o != name: set_link(name, o, "loss=0%"); set_link(o, name, "loss=0%")
    return end

with tempfile.TemporaryDirectory() as tmp:
    labname = start_lab(f"{tmp}/lab.json")
    kinds = [kill, stop, bursts] + ([cable, one_link, loss] if labname else [])
    if os.environ.get("KINDS"): kinds = [k for k in kinds if k.__name__ in os.environ["KINDS"].split(",")]
    # The node beside the coordinator can be killed and stopped like any other; its cable is the coordinator's own.
    victims = {cable: names[1:], one_link: names[1:], loss: names[1:]}
    server, port_of = None, {}
    try:
        tiny.write_model(f"{tmp}/m.gguf", model, blocks=8, context=2048)
        subprocess.run([dilemma, "keys", "cluster", f"{tmp}/keys", *names], check=True, capture_output=True)
        where = {n: start_node(n) for n in names}
        port_of = {n: int(w.rsplit(":", 1)[1]) for n, w in where.items()}
        key = lambda n: open(f"{tmp}/keys/{n}.pub").read().splitlines()[-1].split()[0]
        json.dump({"version": 1, "entry": "a", "nodes": [{"name": n, "address": where[n], "public_key": key(n), "memory_bytes": int(memory[:-1]) * 10 ** 6} for n in names],
                   "links": [{"from": x, "to": y, "latency_sec": 0.001, "bytes_per_sec": 1e8} for x in names for y in names if x != y]}, open(f"{tmp}/cluster.json", "w"))
        cuts = [("a", 0, 2), ("b", 3, 4), ("c", 5, 6), ("d", 7, 9)]
        layers = [{"layer": l, "name": "embedding" if l == 0 else "head" if l == 9 else "blk.%d" % (l - 1), "node": n, "level": "F16", "types": {}, "bytes": 0}
                  for n, first, last in cuts for l in range(first, last + 1)]
        json.dump({"version": 1, "model": {"path": "m.gguf", "hash": ""}, "entry": "a", "context": 2048, "sequences": 2, "tokens_in": 64, "tokens_out": 200, "token_sec": 0.01,
                   "layers": layers, "stages": [{"node": n, "first_layer": f, "last_layer": l} for n, f, l in cuts]}, open(f"{tmp}/plan.json", "w"))
        def serve():
            global server, url
            server = subprocess.Popen([*inside("a"), dilemma, "serve", "--model", f"{tmp}/m.gguf", "--plan", f"{tmp}/plan.json", "--cluster", f"{tmp}/cluster.json", "--deterministic",
                                       "--key", f"{tmp}/keys/coordinator.key", "--port", "0", "--detect-sec", "1", "--slots", "2", "-c", "2048", "--patience-sec", "60",
                                       "--state", f"{tmp}/state"], stdout=subprocess.PIPE, stderr=open(f"{tmp}/serve.log", "a"), text=True)
            url = server.stdout.readline().strip()
            if not url.startswith("http"): sys.exit("serve: " + open(f"{tmp}/serve.log").read()[-2000:])
        serve()
        bodies = [{"prompt": "Once upon a time", "max_tokens": 400, "temperature": 0}, {"prompt": "The sea is " * 40, "max_tokens": 300, "temperature": 0},
                  {"prompt": "A list of names:", "max_tokens": 350, "temperature": 0.9, "seed": 5, "frequency_penalty": 0.4}]
        wanted = []
        for b in bodies:
            s = Stream(url, b); s.join()
            if s.error: sys.exit("without a fault: %s\n%s" % (s.error, open(f"{tmp}/serve.log").read()[-2000:]))
            wanted.append(s.text)
        took = s.when[-1] - s.when[0]
        say("%s; a text of %d pieces takes %.2f s without faults" % ("namespaces" if labname else "loopback", len(s.when), took))

        streams, running, pauses, unnoticed, requests = [], [], [], 0, 0
        def keep_writing():
            global requests
            for i in range(2):
                while len(streams) <= i: streams.append(None)
                s = streams[i]
                if s and s[1].is_alive(): continue
                if s: finish(s)
                k = rng.randrange(len(bodies)); requests += 1
                streams[i] = (k, Stream(url, bodies[k]))
        worst_wrong = []
        def finish(s):
            k, t = s
            t.join()
            if t.error or t.text != wanted[k]:
                worst_wrong.append((k, t.error, len(t.text), len(os.path.commonprefix([t.text, wanted[k]])), len(wanted[k])))
                say("WRONG " + str(worst_wrong[-1]))
            gaps = [b - a for a, b in zip(t.when, t.when[1:])]
            if gaps and max(gaps) > 0.5: pauses.append(max(gaps))

        for i in range(n_faults):
            keep_writing()
            time.sleep(pace * rng.uniform(0.1, 1.2))
            kind = rng.choice(kinds)
            name = rng.choice(victims.get(kind, names))
            lasts = pace * rng.uniform(0.2, 6)
            say("%3d %s %s for %.1f s" % (i + 1, kind.__name__, name, lasts))
            end, until = kind(name), time.time() + lasts
            while time.time() < until: keep_writing(); time.sleep(0.05)
            if i == 1: say("    health: " + json.dumps(health())[:300])
            end()
            if len(worst_wrong) > 3 or server.poll() is not None: break
        until = time.time() + 90
        while any(s and s[1].is_alive() for s in streams) and time.time() < until: time.sleep(0.05)
        for s in streams:
            if s[1].is_alive(): worst_wrong.append((s[0], "hangs", len(s[1].text), 0, len(wanted[s[0]]))); s[1].child.kill()
            finish(s)
        log = open(f"{tmp}/serve.log").read()
        plans, ons = log.count("planned around"), log.count("going on after")
        check("every text is the one without faults", not worst_wrong, worst_wrong, log[-3000:])
        check("it was planned around", plans > 0 or n_faults < 4, log[-3000:])
        until = time.time() + 30
        while health().get("status") != "ok" and time.time() < until: time.sleep(0.1)
        check("health in the end", health().get("status") == "ok", health(), log[-2000:])

        # The entry restarts in the middle of an answer: the retry gets all of it, and so does one that comes later.
        s = Stream(url, {**bodies[2], "key": "once"})
        while len(s.when) < 40 and s.is_alive(): time.sleep(0.01)
        server.kill(); server.wait(); s.join()
        serve()
        again = Stream(url, {**bodies[2], "key": "once"}); again.join()
        check("a retry after the entry's restart", again.text == wanted[2] and not again.error, again.error, len(again.text), len(os.path.commonprefix([again.text, wanted[2]])))
        check("what was there comes at once", len(again.when) > 45 and again.when[39] - again.when[0] < 0.5 * (s.when[39] - s.when[0]), again.when[39] - again.when[0])
        third = Stream(url, {**bodies[2], "key": "once"}); third.join()
        check("the same once more", third.text == wanted[2] and not third.error, third.error)
        other = Stream(url, {**bodies[0], "key": "once"}); other.join()
        check("the key with another request", other.error and "another request" in other.error, other.error)
        server.send_signal(signal.SIGTERM)
        check("the server ends in order", server.wait(20) == 0)
        pauses.sort()
        print(json.dumps({"seed": seed, "faults": i + 1, "network": bool(labname), "requests": requests, "wrong": len(worst_wrong), "planned_around": plans, "recoveries": ons,
                          "moves_back": log.count("; moving to") , "pause_median_sec": round(pauses[len(pauses) // 2], 2) if pauses else None,
                          "pause_max_sec": round(pauses[-1], 2) if pauses else None, "sec": round(time.time() - started, 1)}))
    finally:
        if os.environ.get("KEEP_LOG") and os.path.exists(f"{tmp}/serve.log"): open(os.environ["KEEP_LOG"], "w").write(open(f"{tmp}/serve.log").read())
        for c in [*procs.values(), *([server] if server else [])]:
            if c.poll() is None: c.send_signal(signal.SIGCONT); c.kill()
            c.wait()
        if labname: subprocess.run([lab, "down", "--lab", labname], capture_output=True)
sys.exit(1 if fails else 0)

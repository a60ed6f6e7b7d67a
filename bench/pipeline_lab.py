"""What bench/pipeline runs: the lab of namespaces, the nodes and servers inside it, and llama.cpp's RPC workers."""
import json
import os
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEPS = os.environ.get("DILEMMA_DEPS", os.path.join(ROOT, "build/deps"))
DILEMMA = os.environ.get("DILEMMA", os.path.join(ROOT, "build/release/dilemma"))
NETLAB = os.environ.get("DILEMMA_NETLAB_BIN", os.path.join(ROOT, "build/release/netlab"))
LLAMA = os.environ.get("DILEMMA_LLAMA_BIN", os.path.join(DEPS, "llama-bin"))
NODES = ["a", "b", "c"]
RPC_PORT = 50052


class Skip(Exception):
    pass


def have_llama():
    return all(os.path.exists(os.path.join(LLAMA, f)) for f in ("llama-bench", "ggml-rpc-server"))


def run_json(command, timeout=300):
    r = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if r.returncode: raise RuntimeError("%s: %s" % (" ".join(command[:3]), r.stderr[-800:]))
    return json.loads(r.stdout)


def address(node):
    return "10.77.0.%d" % (1 + NODES.index(node))


def costs(n_blocks, decode_sec, prefill_sec):
    """What a profile would say of every node: of all blocks together, a token, and a prompt token."""
    row = lambda l, sec: [sec / n_blocks if 0 < l <= n_blocks else 0] * len(NODES)
    return {"nodes": NODES, "n_past": 256, "batch": 128, "decode_sec": [row(l, decode_sec) for l in range(n_blocks + 2)],
            "prefill_sec": [row(l, prefill_sec) for l in range(n_blocks + 2)]}


def even_plan(n_blocks, sequences=1, context=2048, costs=None):
    """Blocks split evenly over the nodes; embedding on the first, head on the last. costs: that the ring cuts prompts by."""
    cut = [n_blocks * i // len(NODES) for i in range(len(NODES) + 1)]
    stages = []
    for i, n in enumerate(NODES):
        first, last = (0 if i == 0 else cut[i] + 1), (n_blocks + 1 if i + 1 == len(NODES) else cut[i + 1])
        stages.append({"node": n, "first_layer": first, "last_layer": last, "bytes": 0, "compute_sec": 0, "hop_sec": 0})
    name = lambda l: "embedding" if l == 0 else "head" if l == n_blocks + 1 else "blk.%d" % (l - 1)
    layers = [{"layer": l, "name": name(l), "node": s["node"], "level": "as is", "types": {}, "bytes": 0}
              for s in stages for l in range(s["first_layer"], s["last_layer"] + 1)]
    return {"version": 1, "model": {"path": "m", "hash": ""}, "entry": NODES[0], "context": context, "sequences": sequences, "tokens_in": 64, "tokens_out": 64,
            "token_sec": 0, "prefill_sec": 0, "total_sec": 0, "bound_sec": 0, "gap": 1, "solver": "even", "solve_sec": 0, "ratio_to_fp32": 0.2,
            "predicted_damage": 0, "damage_measure": "kl", "layers": layers, "stages": stages, "costs": costs}


ECHO = """
import socket, struct, sys, time
def take(s, n):
    b = b""
    while len(b) < n:
        x = s.recv(n - len(b))
        if not x: sys.exit()
        b += x
    return b
if sys.argv[1] == "serve":
    l = socket.create_server((sys.argv[2], 7199)); print("listening", flush=True)
    s = l.accept()[0]; s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    n = struct.unpack("I", take(s, 4))[0]
    while True: s.sendall(take(s, n))
n, runs, t = int(sys.argv[3]), int(sys.argv[4]), []
s = socket.create_connection((sys.argv[2], 7199)); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.sendall(struct.pack("I", n))
for i in range(runs + 5):
    t0 = time.perf_counter(); s.sendall(bytes(n)); take(s, n); t.append(time.perf_counter() - t0)
print(sorted(t[5:])[runs // 2])
"""


class Net:
    """Three namespaces whose links change while it runs, and the node processes in them."""

    def __init__(self, tmp):
        self.tmp, self.name, self.procs = tmp, "pipeline-%d" % os.getpid(), []

    def __enter__(self):
        spec = os.path.join(self.tmp, "lab.json")
        with open(spec, "w") as f: json.dump({"nodes": NODES, "default": {"delay_ms": 0}}, f)
        r = subprocess.run([NETLAB, "up", spec, "--lab", self.name], capture_output=True, text=True, timeout=60)
        if r.returncode == 77: raise Skip(r.stderr.strip())
        if r.returncode: raise RuntimeError(r.stderr)
        return self

    def __exit__(self, *_):
        for p in self.procs: end(p)
        subprocess.run([NETLAB, "down", "--lab", self.name], capture_output=True, timeout=60)

    def inside(self, node, command):
        return [NETLAB, "exec", "--lab", self.name, node, "--"] + command

    def links(self, delay_ms, rate_mbit):
        """Of every pair, both ways; rate 0: unlimited."""
        for x in NODES:
            for y in NODES:
                if x != y:
                    subprocess.run([NETLAB, "set", "--lab", self.name, x, y, "delay=%gms" % delay_ms, "rate=%gmbit" % (rate_mbit or 100000)],
                                   check=True, timeout=30)

    def echo(self, x, y, size, runs=41):
        """Half the round trip of plain TCP messages of that size, median, in seconds."""
        server = subprocess.Popen(self.inside(y, [sys.executable, "-c", ECHO, "serve", address(y)]), stdout=subprocess.PIPE, text=True)
        try:
            server.stdout.readline()
            r = subprocess.run(self.inside(x, [sys.executable, "-c", ECHO, "ask", address(y), str(size), str(runs)]),
                               capture_output=True, text=True, timeout=120, check=True)
            return float(r.stdout) / 2
        finally:
            end(server)

    def start_nodes(self, throttle=None):
        keys = os.path.join(self.tmp, "keys")
        if not os.path.exists(keys): subprocess.run([DILEMMA, "keys", "cluster", keys] + NODES, check=True, capture_output=True, timeout=60)
        public = {n: next(w for w in open("%s/%s.pub" % (keys, n)).read().split() if len(w) == 40) for n in NODES}
        for n in NODES:
            log = open(os.path.join(self.tmp, n + ".log"), "w")
            p = subprocess.Popen(self.inside(n, [DILEMMA, "node", "--listen", address(n) + ":7100", "--memory", "1G", "-t", "1", "--key", "%s/%s.key" % (keys, n),
                                                 "--allow", keys + "/allowed", "--cache", os.path.join(self.tmp, "cache-" + n),
                                                 "--throttle", str((throttle or {}).get(n, 1))]),
                                 stdout=subprocess.PIPE, stderr=log, text=True)
            self.procs.append(p)
            if "listening on" not in p.stdout.readline(): raise RuntimeError("node %s does not start: %s" % (n, open(log.name).read()))
        nodes = [{"name": n, "address": address(n) + ":7100", "public_key": public[n], "memory_bytes": 1 << 30, "threads": 1} for n in NODES]
        links = [{"from": x, "to": y, "latency_sec": 0.001, "bytes_per_sec": 1e8} for x in NODES for y in NODES if x != y]
        with open(os.path.join(self.tmp, "cluster.json"), "w") as f: json.dump({"version": 1, "nodes": nodes, "links": links, "entry": NODES[0]}, f)


def questions(path, n):
    """Chats about texts, the first question of each of n paragraphs."""
    data = json.load(open(path))["data"]
    found = [(p["context"], p["qas"][0]["question"]) for a in data for p in a["paragraphs"] if len(p["context"]) < 1500]
    step = max(1, len(found) // max(1, n))
    return [{"messages": [{"role": "user", "content": "%s\n\n%s Answer with a sentence from the text." % x}], "max_tokens": 48, "temperature": 0}
            for x in found[::step][:n]]


def end(p):
    if p.poll() is None:
        p.terminate()
        try: p.wait(10)
        except subprocess.TimeoutExpired: p.kill()
    p.wait()


ASK = """
import json, sys, threading, time, urllib.request
url, bodies, out = sys.argv[1], json.load(sys.stdin), []
def ask(b):
    r = urllib.request.Request(url + ("/chat/completions" if "messages" in b else "/completions"), json.dumps(b).encode())
    out.append(json.load(urllib.request.urlopen(r, timeout=300)))
t = [threading.Thread(target=ask, args=(b,)) for b in bodies]
t0 = time.monotonic()
for x in t: x.start()
for x in t: x.join()
json.dump({"sec": time.monotonic() - t0, "answers": out}, sys.stdout)
"""


class Ring:
    """`dilemma serve` over the nodes, in the entry's namespace; ready when the block begins."""

    def __init__(self, net, model, plan, options, node=NODES[0]):
        self.net, self.node, path = net, node, os.path.join(net.tmp, "plan.json")
        with open(path, "w") as f: json.dump(plan, f)
        self.command = net.inside(node, [DILEMMA, "serve", "--quiet", "--model", model, "--plan", path, "--cluster", os.path.join(net.tmp, "cluster.json"),
                                             "--key", os.path.join(net.tmp, "keys/coordinator.key"), "--port", "0"] + options)

    def __enter__(self):
        self.log = open(os.path.join(self.net.tmp, "serve.log"), "w")
        self.p = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.url = self.p.stdout.readline().strip()
        if not self.url:
            end(self.p)
            raise RuntimeError("serve: " + open(self.log.name).read()[-800:])
        return self

    def __exit__(self, *_):
        end(self.p)

    def batch(self, bodies):
        r = subprocess.run(self.net.inside(self.node, [sys.executable, "-c", ASK, self.url]), input=json.dumps(bodies), capture_output=True, text=True, timeout=400)
        if r.returncode or not r.stdout: raise RuntimeError(r.stderr[-800:])
        return json.loads(r.stdout)

    def ask(self, prompt, n, **how):
        return self.batch([{"prompt": prompt, "max_tokens": n, "temperature": 0, **how}])["answers"][0]

    def metrics(self):
        r = subprocess.run(self.net.inside(self.node, [sys.executable, "-c", "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())",
                                                       self.url.rsplit("/", 1)[0] + "/metrics"]), capture_output=True, text=True, timeout=60, check=True)
        return {line.split()[0]: float(line.split()[1]) for line in r.stdout.splitlines() if line and line[0] != "#"}

    def many(self, streams, n):
        """Tokens a second of that many streams at once; each has a prompt of its own."""
        self.batch([{"prompt": "warm up", "max_tokens": 4, "temperature": 0}] * streams)
        got = self.batch([{"prompt": "Story number %d: once upon a time" % i, "max_tokens": n, "temperature": 0} for i in range(streams)])
        return sum(a["usage"]["completion_tokens"] for a in got["answers"]) / got["sec"]


def llama_rpc(net, model, delay_ms, rate_mbit, n_prompt, n_gen, repeats):
    """(prompt, generation) tokens a second of llama-bench over three RPC workers. Its weights travel over free links; the links are as
    asked from the moment it is loaded. RPC workers are started anew: one that lost its client is not trusted with the next."""
    net.links(0, 0)
    workers = [subprocess.Popen(net.inside(n, [os.path.join(LLAMA, "ggml-rpc-server"), "-H", address(n), "-p", str(RPC_PORT), "-t", "1"]),
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for n in NODES]
    try:
        time.sleep(0.5)
        bench = subprocess.Popen(net.inside(NODES[0], [os.path.join(LLAMA, "llama-bench"), "-m", model, "--rpc", ",".join("%s:%d" % (address(n), RPC_PORT) for n in NODES),
                                                       "-dev", "RPC0/RPC1/RPC2", "-ngl", "99", "-ts", "1/1/1", "-t", "1", "-p", str(n_prompt), "-n", str(n_gen),
                                                       "-r", str(repeats), "-o", "json", "--progress"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        killer = threading.Timer(240, bench.kill)
        killer.start()
        said, is_set = [], False
        for line in bench.stderr: # the result is short: it waits in its pipe
            said.append(line)
            if "warmup" in line and not is_set:
                net.links(delay_ms, rate_mbit)
                is_set = True
        text = bench.stdout.read()
        killer.cancel()
        if bench.wait() or not is_set: raise RuntimeError("llama-bench: " + "".join(said)[-800:])
        got = json.loads(text)
        pp = [r["avg_ts"] for r in got if r["n_prompt"]]
        tg = [statistics.median(r["samples_ts"]) for r in got if r["n_gen"]]
        return (pp[0] if pp else None), tg[0]
    finally:
        for w in workers: end(w)

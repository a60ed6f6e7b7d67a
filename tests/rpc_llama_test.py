#!/usr/bin/env python3
"""A plan served on stock ggml RPC workers says what one process says; a worker that is not there, and something that is no worker, are named."""
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

dilemma, model = os.environ["DILEMMA"], os.environ.get("DILEMMA_TEST_MODEL", "")
worker = os.path.join(os.environ.get("DILEMMA_LLAMA_BIN", ""), "ggml-rpc-server")
if not os.path.exists(model) or not os.path.exists(worker):
    print("SKIPPED: no test model (make model), or no ggml-rpc-server (tools/deps llama)")
    sys.exit(77)
fails = []


def check(what, ok, *said):
    print("ok    " if ok else "FAILED", what, *([] if ok else said))
    if not ok: fails.append(what)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s: return s.getsockname()[1]


def answers(port):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try: socket.create_connection(("127.0.0.1", port), 1).close(); return
        except OSError: time.sleep(0.05)
    raise SystemExit("ggml-rpc-server does not start")


with tempfile.TemporaryDirectory() as tmp:
    ports, procs = [free_port(), free_port()], []
    path = lambda name: os.path.join(tmp, name)
    stages = [("a", 0, 8), ("b", 9, 20), ("c", 21, 30), ("a", 31, 31)]

    def write(address):
        nodes = [{"name": n, "address": a, "memory_bytes": 1 << 30} for n, a in zip("abc", ["127.0.0.1:1"] + address)]
        json.dump({"version": 1, "nodes": nodes, "links": [{"from": x, "to": y, "latency_sec": 1e-4, "bytes_per_sec": 1e9} for x in "abc" for y in "abc" if x != y],
                   "entry": "a"}, open(path("cluster.json"), "w"))

    layers = [{"layer": l, "name": "embedding" if l == 0 else "head" if l == 31 else "blk.%d" % (l - 1), "node": n, "level": "as is", "types": {}, "bytes": 0}
              for n, f, t in stages for l in range(f, t + 1)]
    json.dump({"version": 1, "model": {"path": "m", "hash": ""}, "entry": "a", "context": 256, "sequences": 2, "tokens_in": 64, "tokens_out": 24, "token_sec": 0.07,
               "prefill_sec": 0.2, "total_sec": 2.0, "bound_sec": 0, "gap": 1, "solver": "by hand", "solve_sec": 0, "ratio_to_fp32": 0.18, "predicted_damage": 0,
               "damage_measure": "kl", "layers": layers, "stages": [{"node": n, "first_layer": f, "last_layer": t, "bytes": 0, "compute_sec": 0, "hop_sec": 0.001}
                                                                    for n, f, t in stages]}, open(path("plan.json"), "w"))
    command = [dilemma, "serve", "--quiet", "--insecure", "--model", model, "--plan", path("plan.json"), "--cluster", path("cluster.json"), "--port", "0", "--threads", "1"]

    def refused(address, words):
        write(address)
        r = subprocess.run(command, capture_output=True, text=True, timeout=60)
        check("%s is refused and named" % address[0], r.returncode > 0 and all(w in r.stderr for w in words), r.returncode, r.stderr[-500:])

    try:
        procs = [subprocess.Popen([worker, "-H", "127.0.0.1", "-p", str(p), "-t", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for p in ports]
        for p in ports: answers(p)
        write(["rpc://127.0.0.1:%d" % p for p in ports])
        serve = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        procs.append(serve)
        url = serve.stdout.readline().strip()
        for prompt in ("The capital of France is", "One, two, three, one, two, three, one, two,"):
            body = json.dumps({"prompt": prompt, "max_tokens": 20, "temperature": 0}).encode()
            got = json.load(urllib.request.urlopen(urllib.request.Request(url + "/completions", body), timeout=120))["choices"][0]["text"]
            one = json.loads(subprocess.run([dilemma, "run", model, "-p", prompt, "-n", "20", "-t", "1", "--json", "--quiet"], capture_output=True, text=True).stdout)["text"]
            check("workers say %r" % got[:40], got == one, one)
        serve.terminate()
        serve.wait(30)
        refused(["rpc://127.0.0.1:%d" % free_port(), "rpc://127.0.0.1:%d" % ports[1]], ["does not answer", "rpc-server"])
        with socket.create_server(("127.0.0.1", 0)) as other: # something that answers, but is no worker
            def hang_up():
                c = other.accept()[0]
                c.recv(64)
                c.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + bytes(64))
                c.close()
            t = threading.Thread(target=hang_up, daemon=True)
            t.start()
            refused(["rpc://127.0.0.1:%d" % other.getsockname()[1], "rpc://127.0.0.1:%d" % ports[1]], ["protocol"])
        refused(["127.0.0.1:7100", "rpc://127.0.0.1:%d" % ports[1]], ["'b'", "rpc://"])
    finally:
        for p in procs:
            p.kill()
            p.wait()
print("%d failed" % len(fails) if fails else "all good")
sys.exit(1 if fails else 0)

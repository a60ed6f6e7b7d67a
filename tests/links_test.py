#!/usr/bin/env python3
"""A link that becomes slow, not broken, while a stream runs: it is measured again, planned around when that pays, and used again when it is as
fast as before; the stream goes on and its text is the one without all that. Three nodes in network namespaces; the plan's two, and one that could
take the place of the second."""
import json, os, subprocess, sys, tempfile, threading, time, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
from serving import DILEMMA, check, done, skip

model, LAB = tiny.need_model(), os.environ.get("DILEMMA_NETLAB_BIN", "")
names, procs, lab = ["a", "b", "c"], [], "links-%d" % os.getpid()
inside = lambda node: [LAB, "exec", "--lab", lab, node, "--"]


def start(node, args, log):
    for _ in range(20):   # the lab lets one in at a time
        p = subprocess.Popen([*inside(node), DILEMMA, *args], stdout=subprocess.PIPE, stderr=open(log, "a"), text=True)
        line = p.stdout.readline().strip()
        if line:
            procs.append(p)
            return line
        p.wait(); time.sleep(0.1)
    sys.exit(f"{args[0]}: {open(log).read()[-2000:]}")


def set_link(x, y, *what):
    for a, b in ((x, y), (y, x)):
        for _ in range(50):
            if subprocess.run([LAB, "set", "--lab", lab, a, b, *what], capture_output=True).returncode == 0: break
            time.sleep(0.1)
        else: sys.exit("netlab does not answer")


ASK = """
import json, sys, urllib.request
for line in urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/completions", sys.argv[2].encode()), timeout=300):
    if line.startswith(b"data: {"): print(line[6:].decode().strip(), flush=True)
"""


class Stream(threading.Thread):
    def __init__(self, url, n):
        super().__init__(daemon=True)
        self.text, self.error = "", None
        body = {"prompt": "Once upon a time", "max_tokens": n, "temperature": 0, "stream": True}
        self.p = subprocess.Popen([*inside("a"), sys.executable, "-c", ASK, url, json.dumps(body)], stdout=subprocess.PIPE, text=True)
        self.start()
    def run(self):
        for line in self.p.stdout:
            d = json.loads(line)
            if "error" in d: self.error = d["error"]
            else: self.text += d["choices"][0]["text"]
        self.p.wait()


with tempfile.TemporaryDirectory() as tmp:
    json.dump({"nodes": names, "default": {"delay_ms": 1, "rate_mbit": 1000}}, open(f"{tmp}/lab.json", "w"))
    if not LAB: skip("no netlab")
    r = subprocess.run([LAB, "up", f"{tmp}/lab.json", "--lab", lab], capture_output=True, text=True)
    if r.returncode: skip("no network namespaces here: " + r.stderr.strip())
    try:
        tiny.write_model(f"{tmp}/m.gguf", model, blocks=6, context=2048)
        subprocess.run([DILEMMA, "keys", "cluster", f"{tmp}/keys", *names], check=True, capture_output=True)
        where = {}
        for i, n in enumerate(names):
            where[n] = start(n, ["node", "--listen", f"10.77.0.{i + 1}:7100", "--memory", "6M", "-t", "1", "--throttle", "3", "--key", f"{tmp}/keys/{n}.key",
                                 "--allow", f"{tmp}/keys/allowed", "--cache", f"{tmp}/cache-{n}"], f"{tmp}/{n}.log").split()[2]
        key = lambda n: open(f"{tmp}/keys/{n}.pub").read().splitlines()[-1].split()[0]
        json.dump({"version": 1, "entry": "a", "nodes": [{"name": n, "address": where[n], "public_key": key(n), "memory_bytes": 6 * 10 ** 6} for n in names],
                   "links": [{"from": x, "to": y, "latency_sec": 0.0011, "bytes_per_sec": 1e8} for x in names for y in names if x != y]}, open(f"{tmp}/cluster.json", "w"))
        cuts = [("a", 0, 3), ("b", 4, 7)]
        layers = [{"layer": l, "name": "embedding" if l == 0 else "head" if l == 7 else "blk.%d" % (l - 1), "node": x, "level": "F16", "types": {}, "bytes": 0}
                  for x, f, last in cuts for l in range(f, last + 1)]
        json.dump({"version": 1, "model": {"path": "m.gguf", "hash": ""}, "entry": "a", "context": 2048, "sequences": 2, "tokens_in": 64, "tokens_out": 400, "token_sec": 0.01,
                   "layers": layers, "stages": [{"node": x, "first_layer": f, "last_layer": l} for x, f, l in cuts]}, open(f"{tmp}/plan.json", "w"))
        log = f"{tmp}/serve.log"
        url = start("a", ["serve", "--model", f"{tmp}/m.gguf", "--plan", f"{tmp}/plan.json", "--cluster", f"{tmp}/cluster.json", "--key", f"{tmp}/keys/coordinator.key", "--port", "0",
                          "--deterministic", "--speculate", "off", "-c", "2048", "--relink-sec", "3"], log)
        said = lambda: open(log).read()

        def wait_for(text, sec):
            end = time.time() + sec
            while time.time() < end and text not in said(): time.sleep(0.05)
            return text in said()

        still = Stream(url, 700); still.join()
        check("a stream without changes", still.error is None and len(still.text) > 500, still.error)
        s = Stream(url, 700)
        while len(s.text) < 60 and s.is_alive(): time.sleep(0.01)
        set_link("a", "b", "delay=60ms")
        check("a link that became slow is found", wait_for("the link from", 60), said()[-1500:])
        check("and planned around", wait_for("moving to a", 60) and wait_for("going on after", 60), said()[-1500:])
        away = "moving to" in said() and ", c " in said().split("moving to", 1)[1].splitlines()[0]
        check("by way of the third node", away, said()[-1500:])
        s.join()
        check("the stream went on with the same text", s.error is None and s.text == still.text, s.error, s.text[-100:], still.text[-100:])
        n = said().count("moving to")
        set_link("a", "b", "delay=1ms")
        # Both are alike now: nothing is gained by moving back, and that is what is said.
        end = time.time() + 60
        while time.time() < end and said().count("the link from") < 2: time.sleep(0.1)
        check("that it is as fast as before is found too", said().count("the link from") >= 2, said()[-1500:])
        set_link("a", "c", "delay=60ms")
        s = Stream(url, 700)
        end = time.time() + 90
        while time.time() < end and said().count("moving to") == n: time.sleep(0.05)
        check("and it is used again when that pays", said().count("moving to") > n and ", b " in said().rsplit("moving to", 1)[1].splitlines()[0], said()[-1500:])
        s.join()
        check("this stream too", s.error is None and s.text == still.text, s.error)
        if os.environ.get("VERBOSE"): print(said())
    finally:
        for p in reversed(procs):
            if p.poll() is None: p.terminate()
            p.wait(timeout=60)
        subprocess.run([LAB, "down", "--lab", lab], capture_output=True, timeout=60)
done()

#!/usr/bin/env python3
"""`dilemma top` on a terminal, before a server over two of three nodes: what it shows, its keys, a lost node, a server that goes away."""
import json, os, subprocess, sys, tempfile, threading, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
from serving import DILEMMA, check, done
from terminal import Terminal

model = tiny.need_model()
names, procs = ["a", "b", "c"], {}


def start(name, args, log):
    procs[name] = subprocess.Popen([DILEMMA, *args], stdout=subprocess.PIPE, stderr=open(log, "a"), text=True)
    line = procs[name].stdout.readline().strip()
    if not line: sys.exit(f"{args[0]}: {open(log).read()[-2000:]}")
    return line


def row(lines, name):
    return next((l for l in lines if l.startswith(f"  {name}")), "")


with tempfile.TemporaryDirectory() as tmp:
    try:
        tiny.write_model(f"{tmp}/one.gguf", model, blocks=4, vocab=4096)
        subprocess.run([DILEMMA, "keys", "cluster", f"{tmp}/keys", *names], check=True, capture_output=True)
        where = {n: start(n, ["node", "--listen", "127.0.0.1:0", "--memory", "20M", "-t", "1", "--key", f"{tmp}/keys/{n}.key", "--allow", f"{tmp}/keys/allowed",
                              "--cache", f"{tmp}/cache-{n}"], f"{tmp}/{n}.log").split()[2] for n in names}
        tiny.write_cluster(f"{tmp}/cluster.json", f"{tmp}/keys", where, 20 * 10 ** 6)
        tiny.write_plan(f"{tmp}/plan.json", "one.gguf", [("a", 0, 2), ("b", 3, 5)], token_sec=0.025)
        url = start("serve", ["serve", "--model", f"{tmp}/one.gguf", "--plan", f"{tmp}/plan.json", "--cluster", f"{tmp}/cluster.json", "--key", f"{tmp}/keys/coordinator.key",
                              "--detect-sec", "1", "--port", "0"], f"{tmp}/serve.log").removesuffix("/v1")
        def ask():
            body = json.dumps({"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0}).encode()
            return json.load(urllib.request.urlopen(urllib.request.Request(url + "/v1/completions", body), timeout=120))["usage"]["completion_tokens"]
        env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        t = Terminal(env, "top", "--url", url, "--every", "0.2", rows=24, columns=110)
        lines = t.screen(lambda l: row(l, "a") and "ready" in l[0])
        check("it leaves the screen of before alone", "\x1b[?1049h" in t.bytes and "\x1b[?25l" in t.bytes)
        check("the model, where it is, and how it is", lines and lines[0].startswith(f"one at {url}  ready"), lines)
        check("each machine with its layers", "0-2" in row(lines, "a <") and "3-5" in row(lines, "b") and "holds nothing" in row(lines, "c"), lines)
        check("a screen has as many lines as the terminal", len(lines) == 24 and all(len(l) <= 110 for l in lines), [len(l) for l in lines])
        check("predicted: the plan's", any(l.split()[:3] == ["a", "token", "25.0"] for l in lines), lines)
        check("planned for a machine", row(lines, "a <").split("]")[-1].split()[:2] == ["6.25", "ms"], row(lines, "a <"))
        n = [0]
        asks = threading.Thread(target=lambda: n.__setitem__(0, ask())); asks.start()
        lines = t.screen(lambda l: any(f"made {n[0]}," in x for x in l) and n[0])
        asks.join()
        check("tokens are counted", n[0] == 100 and lines, n)
        token = next((l.split() for l in lines if l.startswith("  a token")), [])
        check("measured beside predicted, with the difference", len(token) == 8 and token[5] == "ms" and token[7] == "%", token)
        machine = row(lines, "a <").split("]")[-1].split()
        check("what each machine computed", machine[2] != "-" and float(machine[2]) > 0 and machine[3] == "ms", machine)
        t.say("l")
        lines = t.screen(lambda l: any("there and back" in x for x in l))
        check("l: the links", sum("Mbit/s" in l for l in lines) == 6, lines)
        t.say("l?")
        check("?: the keys", any("Ctrl-C" in l for l in t.screen(lambda l: any("pause, and go on" in x for x in l))))
        t.say(" ")
        t.resize(9, 40)
        lines = t.screen(lambda l: len(l) == 9 and all(len(x) <= 40 for x in l))
        check("a small terminal: cut, not broken", lines and lines[0].startswith("one at"), lines)
        t.resize(24, 110)
        t.screen(lambda l: len(l) == 24 and row(l, "a"))
        procs["b"].kill()
        lines = t.screen(lambda l: "holds nothing" in row(l, "b") and l[0].endswith("ready") and any("-5" in row(l, x) for x in ("a", "c")), 60)
        check("a node is lost: what runs where now", bool(lines))
        procs["serve"].terminate(); procs["serve"].wait(timeout=60)
        lines = t.screen(lambda l: l[-1].startswith("no answer for"))
        check("a server that is gone is waited for", bool(lines))
        t.say("q")
        check("q ends it", t.end() == 0)
        check("and gives the terminal back", t.bytes.rstrip().endswith("\x1b[?25h\x1b[?1049l"), t.bytes[-80:])
    finally:
        for p in reversed(list(procs.values())):
            if p.poll() is None: p.terminate()
            p.wait(timeout=60)
done()

#!/usr/bin/env python3
"""`dilemma chat`, `top` and `doctor` as a person and as a script use them."""
import json, os, re, shutil, socket, subprocess, sys, tempfile
from pathlib import Path
sys.path.insert(0, os.path.dirname(__file__))
from serving import DILEMMA, MODEL, Serve, check, done, need_model
from terminal import Terminal

need_model()
tmp = Path(tempfile.mkdtemp(prefix="dilemma-terminal-"))
HOME = {**os.environ, "HOME": str(tmp), "XDG_STATE_HOME": str(tmp / "state"), "XDG_CACHE_HOME": str(tmp / "cache"), "XDG_CONFIG_HOME": str(tmp / "config"), "NO_COLOR": "1"}
for k in ("DILEMMA_API_KEY", "DILEMMA_HOME"): HOME.pop(k, None)


def run(*args, text=None, env={}, timeout=120):
    return subprocess.run([DILEMMA, *args], input=text, capture_output=True, text=True, env={**HOME, **env}, timeout=timeout)


try:
    with Serve("--slots", "2", "--log-format", "json", stderr=subprocess.PIPE) as s:
        ask = lambda m: s.request("POST", "/v1/chat/completions", {"messages": m, "temperature": 0, "max_tokens": 12})[1]["choices"][0]["message"]["content"]
        q1, q2 = {"role": "user", "content": "Name three colours."}, {"role": "user", "content": "And one\nmore?"}
        a1 = ask([q1]); a2 = ask([q1, {"role": "assistant", "content": a1}, q2])
        cold = ("chat", "--url", s.base, "--temperature", "0", "-n", "12")
        saved = tmp / "talk.json"
        r = run(*cold, text=f"Name three colours.\nAnd one\\\nmore?\n/save {saved}\n/new\nName three colours.\n")
        check("chat, piped: the conversation goes on, then anew", r.returncode == 0 and r.stdout == f"{a1}\n{a2}\n{a1}\n", r, a1, a2)
        check("/save", [m["content"] for m in json.loads(saved.read_text())] == [q1["content"], a1, q2["content"], a2], saved.read_text())
        r = run(*cold, "--system", "Answer in French.", text='"""Name\nthree colours."""\n/retry\n')
        b = ask([{"role": "system", "content": "Answer in French."}, {"role": "user", "content": "Name\nthree colours."}])
        check("chat: quotes, a system text, /retry", r.stdout == f"{b}\n{b}\n", r, b)
        r = run("chat", "--url", "http://127.0.0.1:1", text="Hello\n")
        check("chat: nobody there: exit 11", r.returncode == 11 and "serve" in r.stderr, r)

        t = Terminal(HOME, *cold)
        t.until(">>> ")
        t.say("Name three colours.\n")
        t.until(re.escape(a1.split("\n")[0]))
        t.until(">>> ")
        t.say("\x1b[A")                     # the line before
        t.until("Name three colours.")
        t.say("\x15And one\\\n")            # cleared; a line that goes on
        t.until(r"\.\.\. ")
        t.say("more?\n")
        t.until(re.escape(a2.split("\n")[0]))
        t.until(">>> ")
        t.say("/bye\n")
        check("chat on a terminal: history and several lines", t.end() == 0)
        hist = tmp / "state" / "dilemma" / "chat_history"
        check("its history is kept, for nobody else", "Name" in hist.read_text() and hist.stat().st_mode & 0o77 == 0, hist)
        t = Terminal(HOME, "chat", "--url", s.base, "--temperature", "1", "--seed", "1")
        t.until(">>> ")
        t.say("\x1b[A")                     # the last line of the chat before
        t.until("/bye")
        t.say("\x15Write a very long story.\n")
        s.wait_metric("requests_active", lambda v: v == 1)
        t.say("\x03")                       # Ctrl-C
        t.until(">>> ")
        check("Ctrl-C stops the answer, not the chat", s.wait_metric("requests_active", lambda v: v == 0, 20))
        t.say("\x04")
        check("Ctrl-D ends it", t.end() == 0)

        r = run("top", "--url", s.base, "--once", "--json", "--every", "0.2")
        j = json.loads(r.stdout)
        check("top --once --json", r.returncode == 0 and j["health"]["status"] == "ok" and j["metrics"]["generated_tokens_total"] == s.metric("generated_tokens_total")
              and j["per_second"]["generated_tokens"] == 0, j)
        r = run("top", "--url", s.base, "--once", "--every", "0.2")
        check("top --once", "tokens/s" in r.stdout and "ok" in r.stdout, r)
        check("top: nobody there: exit 11", run("top", "--url", "http://127.0.0.1:1", "--once").returncode == 11)
        r = run("doctor", "--url", s.base, "--json")
        check("doctor: the server answers", any(f["check"] == "server" and f["grade"] == "ok" for f in json.loads(r.stdout)), r)
        s.request("GET", "/v1/nothing", headers={"X-Request-Id": "abc-123"})
        s.p.terminate()
        lines = [json.loads(l) for l in s.p.stderr.read().splitlines() if l.startswith("{")]
        mine = [l for l in lines if l.get("request") == "abc-123"]
        check("the log is JSON, a line a request, under its id", len(mine) == 1 and mine[0]["status"] == 404 and mine[0]["level"] == "info", lines[-3:])
        check("with its tokens", any(l.get("generated_tokens") == 12 and l.get("prompt_tokens", 0) > 5 for l in lines), lines[:2])

    r = run("chat", "--model", MODEL, "-t", "1", "-c", "512", "--temperature", "0", "-n", "12", text="Name three colours.\n")
    check("chat --model: the same answer without a server", r.returncode == 0 and r.stdout == a1 + "\n", r)

    # doctor: each thing that is wrong has its exit status and its cure
    def find(r, what): return [f for f in json.loads(r.stdout) if f["check"] == what]
    r = run("doctor", "--json", "--model", MODEL)
    check("doctor: nothing wrong here", r.returncode == 0 and {f["check"] for f in json.loads(r.stdout)} >= {"memory", "disk", "clock", "keys", "ports", "compute", "model"}, r)
    check("doctor: no keys yet: a warning with a cure", find(r, "keys")[0]["grade"] == "warning" and "dilemma keys" in find(r, "keys")[0]["cure"], r)
    r = run("doctor", "--json", "--model", MODEL + ".none")
    check("doctor: no such model: exit 5", r.returncode == 5 and find(r, "model")[0]["cure"], r)
    run("keys", "new")
    key = tmp / "config" / "dilemma" / "key"
    check("doctor: keys", find(run("doctor", "--json"), "keys")[0]["grade"] == "ok")
    key.chmod(0o644)
    r = run("doctor", "--json")
    check("doctor: a key that others may read: exit 12, chmod", r.returncode == 12 and "chmod" in find(r, "keys")[0]["cure"], r)
    key.chmod(0o600)
    r = run("doctor", "--json", "--insecure", "--node", "a=127.0.0.1:1")
    check("doctor: a node that is not there: exit 11", r.returncode == 11 and "dilemma node" in find(r, "nodes")[0]["cure"], r)
    taken = socket.socket(); taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", 7100)); taken.listen()
    except OSError: pass
    check("doctor: a port in use is said", [f["grade"] for f in find(run("doctor", "--json"), "ports") if "7100" in f["text"]] == ["warning"])
    taken.close()
    nodes = [subprocess.Popen([DILEMMA, "node", "--insecure", "--listen", "127.0.0.1:0", "--memory", "500M", "-t", "1"], stdout=subprocess.PIPE, text=True, env=HOME) for _ in "ab"]
    try:
        ports = [n.stdout.readline().split(":")[1].split()[0] for n in nodes]
        r = run("doctor", "--json", "--insecure", "--link-time", "0.2", "--node", *[f"{n}=127.0.0.1:{p}" for n, p in zip("ab", ports)])
        check("doctor: nodes and both links", r.returncode == 0 and len(find(r, "nodes")) == 2 and len(find(r, "links")) == 2 and not find(r, "versions"), r)
        r = run("doctor", "--json", "--node", f"a=127.0.0.1:{ports[0]},{'0' * 40}")
        check("doctor: a node without keys is not taken for one with them", r.returncode in (11, 12), r)
    finally:
        for n in nodes: n.terminate()
        for n in nodes: n.wait(timeout=30)
    check("doctor for people", "cure:" in run("doctor", "--insecure", "--node", "a=127.0.0.1:1").stdout)
finally: shutil.rmtree(tmp)
done()

#!/usr/bin/env python3
"""The web page in headless Chromium, over a cluster of two nodes that `dilemma up` planned: what it shows is what was measured and
planned, what it asks goes nowhere else, and it works on a phone, by keyboard and in the dark. DILEMMA_SCREENSHOTS=DIR keeps pictures."""
import json, os, re, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import browser, tiny
from serving import check, done, skip

model, dilemma = tiny.need_model(), os.environ["DILEMMA"]
if not browser.find(): skip("no chromium (tools/deps browser)")
shots = os.environ.get("DILEMMA_SCREENSHOTS")
running = []


def post(url, body):
    try:
        r = urllib.request.urlopen(urllib.request.Request(url, body if isinstance(body, bytes) else json.dumps(body).encode()), timeout=120)
        return r.status, json.load(r)
    except urllib.error.HTTPError as e: return e.code, json.load(e)


with tempfile.TemporaryDirectory() as tmp:
    p = lambda *name: os.path.join(tmp, *name)
    tiny.write_model(p("tiny.gguf"), model)
    subprocess.run([dilemma, "keys", "cluster", p("keys"), "a", "b"], check=True, stdout=subprocess.DEVNULL)
    def start(*args):
        running.append(subprocess.Popen([dilemma, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return running[-1]
    def node(name, memory):
        child = start("node", "--listen", "127.0.0.1:0", "--memory", memory, "-t", "1", "--key", p("keys", name + ".key"), "--allow", p("keys", "allowed"), "--cache", p("cache-" + name))
        return re.search(r"127\.0\.0\.1:(\d+)", child.stdout.readline()).group(0)
    def shows_code(name):
        """A node that waits to be paired: its code and address."""
        child, said = start("node", "--pair", "--name", name, "--listen", "127.0.0.1:0", "--memory", "2M", "-t", "1", "--key", p(name + ".key"), "--allow", p(name + ".allowed"), "--cache", p("cache-" + name)), ""
        while "dilemma pair" not in said: said += child.stdout.readline()
        return re.search(r"^ +(\d{4}) (\d{4})$", said, re.M).expand(r"\1\2"), re.search(r"dilemma pair (\S+)", said).group(1)
    def key_of(name): return subprocess.run([dilemma, "keys", "show", p(name + ".key")], capture_output=True, text=True).stdout.strip()
    try:
        at_a, at_b = node("a", "1550k"), node("b", "1650k")
        up = start("up", "--model", p("tiny.gguf"), "--dir", p("d"), "--keys", p("keys"), "--node", f"a={at_a}", f"b={at_b}", "--max-ratio", "0.1275", "--context", "512",
                   "--tokens-in", "32", "--tokens-out", "32", "--port", "0", "-t", "1")
        base = next((l.strip() for l in up.stdout if l.startswith("http")), None)
        if not base: sys.exit("up did not serve")
        base = base.removesuffix("v1")
        plan, cluster = (json.load(open(p("d", f))) for f in ("plan.json", "cluster.json"))
        state = json.load(urllib.request.urlopen(base + "dilemma/state"))
        check("the state is the plan's file", [l["node"] for l in state["plan"]["layers"]] == [l["node"] for l in plan["layers"]] and state["can_replan"] and state["ready"], state)

        # the server's side of "what if"
        s, a = post(base + "dilemma/whatif", {"max_ratio": 0.5, "context": 512, "points": 4})
        check("what if: a plan and a front", s == 200 and a["plan"]["predicted_damage"] <= state["plan"]["predicted_damage"] and len(a["front"]) >= 2, s, a)
        check("the front falls", all(x["token_sec"] >= y["token_sec"] for x, y in zip(a["front"], a["front"][1:])), a["front"])
        s, a = post(base + "dilemma/whatif", {"without": ["b"]})
        check("without a machine that is needed: no plan, and why", s == 200 and a["plan"] is None and any(w in a["why"] for w in ("memory", "stor", "budgets")), s, a)
        for what, body in (("no JSON", b"{"), ("a ratio of text", {"max_ratio": "x"}), ("a ratio of 0", {"max_ratio": 0}), ("an unknown machine", {"without": ["c"]}),
                           ("without the entry", {"without": ["a"]}), ("too many points", {"points": 99}), ("a list", [])):
            s, a = post(base + "dilemma/whatif", body)
            check(f"what if, {what}: 400", s == 400 and a["error"]["message"], s, a)
        got = []
        ts = [threading.Thread(target=lambda: got.append(post(base + "dilemma/whatif", {"max_ratio": 0.5, "points": 8})[0])) for _ in range(4)]
        [t.start() for t in ts]; [t.join() for t in ts]
        check("one question at a time, the others are told", set(got) <= {200, 429} and 200 in got, got)

        with browser.Browser() as b:
            b.view(1200, 900)
            b.open(base)
            check("the page comes up", b.wait("document.getElementById('status').textContent === 'ready'") and b.eval("document.title") == "dilemma")
            check("a rectangle a layer", b.eval("document.querySelectorAll('#plan rect').length") == len(plan["layers"]))
            check("coloured by bits", b.eval("new Set([...document.querySelectorAll('#plan rect')].map(r => r.getAttribute('fill'))).size") == len({round(l["bits"], 6) for l in state["plan"]["layers"]}))
            check("a circle a machine, a line a link", b.eval("[document.querySelectorAll('#net circle').length, document.querySelectorAll('#net line').length]") == [2, 1])
            rtt = cluster["links"][0]["rtt_sec"]
            check("with its measured delay", f"{float(f'{rtt * 1e3:.3g}'):g}" in b.eval("[...document.querySelectorAll('#net text')].map(t => t.textContent).join(' ')"), rtt)
            check("the predicted delay", b.eval("parseFloat(document.getElementById('f-predicted').textContent)") == float(f"{plan['predicted']['token_sec'] * 1e3:.3g}") if "predicted" in plan else True)
            # the chat, by keyboard alone
            b.eval("document.getElementById('text').focus()")
            b.type("Hello")
            b.key("Enter", "Enter", 13, "\r")
            check("a chat answers", b.wait("document.querySelector('#talk .assistant, #talk .bad') && !document.getElementById('send').disabled && document.querySelector('#talk .assistant').textContent.length > 0")
                  and not b.eval("document.querySelector('#talk .bad')"), b.eval("document.getElementById('talk').textContent"))
            check("the measured delay shows", b.wait("/ms/.test(document.getElementById('f-measured').textContent)"))
            b.eval("document.body.focus()")
            order = []
            for _ in range(12):
                b.key("Tab", "Tab", 9)
                order.append(b.eval("document.activeElement.id || document.activeElement.tagName"))
            check("Tab reaches the sliders and the chat", b.eval("[...document.querySelectorAll('input, button, textarea, summary')].every(e => e.tabIndex >= 0)") and len(set(order)) > 6, order)
            # what if
            b.eval("document.getElementById('ratio').value = 40; document.getElementById('ratio').dispatchEvent(new Event('input', {bubbles: true})); document.getElementById('what').requestSubmit()")
            check("the sliders plan again", b.wait("document.querySelectorAll('#whatplan rect').length > 0 && document.querySelectorAll('#front circle').length > 1"), b.eval("document.getElementById('whatstate').textContent"))
            check("every control has a name", b.eval("[...document.querySelectorAll('input, textarea')].every(e => e.labels && e.labels.length)"))
            # a machine is enrolled by its code, through the page; wrong codes, and what is nobody
            code, at_c = shows_code("c")
            b.eval(f"document.getElementById('e-address').value = '{at_c}'; document.getElementById('e-code').value = '{(int(code) + 1) % 10**8:08d}'; document.getElementById('enrol').requestSubmit()")
            check("a wrong code is said on the page", b.wait("/not the one/.test(document.getElementById('e-state').textContent) && !document.getElementById('e-go').disabled"), b.eval("document.getElementById('e-state').textContent"))
            b.eval("document.getElementById('e-code').focus(); document.getElementById('e-code').select()")
            b.type(code[:4] + " " + code[4:])
            b.key("Enter", "Enter", 13, "\r")
            check("the right one enrols", b.wait("/c is enrolled/.test(document.getElementById('e-state').textContent) && /c/.test(document.getElementById('e-list').textContent)"), b.eval("document.getElementById('e-state').textContent"))
            check("both sides have the keys", open(p("keys", "c.pub")).read().split()[-2] == key_of("c") and f"c {at_c}" in open(p("keys", "nodes")).read())
            s, a = post(base + "dilemma/pair", {"address": at_c, "code": code})
            check("a node that has paired pairs no more: 502", s == 502 and "--pair" in a["error"]["message"], s, a)
            for what, body in (("no code", {"address": at_c}), ("a code of letters", {"address": at_c, "code": "abcdefgh"}), ("a name that is a path", {"address": at_c, "code": code, "name": "../x"}), ("no address", {"code": code})):
                s, a = post(base + "dilemma/pair", body)
                check(f"enrolling with {what}: 400", s == 400 and a["error"]["message"], s, a)
            code, at_d = shows_code("d")
            s, a = post(base + "dilemma/pair", {"address": at_d, "code": code, "name": "a"})
            check("a name that is another machine's: 409", s == 409 and "another name" in a["error"]["message"], s, a)
            s, a = post(base + "dilemma/find", {})
            check("nobody is looked for unless up was told to: 404", s == 404, s, a)
            if shots: b.screenshot(os.path.join(shots, "page.webp"))
            # dark, and a phone
            light = b.eval("getComputedStyle(document.body).backgroundColor")
            b.view(1200, 900, dark=True)
            check("dark mode", b.eval("getComputedStyle(document.body).backgroundColor") != light)
            b.view(360, 740, dark=True, mobile=True)
            b.open(base)
            b.wait("document.querySelectorAll('#plan rect').length > 0")
            check("on a phone nothing is wider than the screen", b.eval("document.documentElement.scrollWidth <= 360"), b.eval("document.documentElement.scrollWidth"))
            check("and buttons are large enough for a finger", b.eval("[...document.querySelectorAll('button')].filter(e => e.offsetParent).every(e => e.offsetHeight >= 36)"))
            if shots: b.screenshot(os.path.join(shots, "phone.webp"))
            check("no request goes elsewhere", all(u.startswith((base, "data:")) for u in b.requests()), [u for u in b.requests() if not u.startswith(base)])
            others = [c for c in b.complaints() if "status of 403" not in str(c) or "dilemma/pair" not in str(c)]   # the wrong code's answer
            check("no complaint on the console", not others, others)
    finally:
        for c in running: c.terminate()
        for c in running:
            try: c.wait(30)
            except subprocess.TimeoutExpired: c.kill()
        check("all end in order", all(c.returncode == 0 for c in running), [c.returncode for c in running])
done()

#!/usr/bin/env python3
"""`dilemma demo` from nothing to the report on a small random model: its figures against independent ones, what is kept, what a
kill leaves behind."""
import html.parser, json, os, re, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ["DILEMMA"], tiny.need_model()

fails = []
def check(what, good, *detail):
    print(("ok      " if good else "FAILED  ") + what, *([] if good else detail), flush=True)
    if not good: fails.append(what)

def nodes_of(folder):
    """Processes of ours that were started for this folder."""
    found = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        try: line = open(f"/proc/{p}/cmdline").read()
        except OSError: continue
        if "node\0" in line and folder in line: found.append(int(p))
    return found

def gone(folder):
    end = time.monotonic() + 20
    while nodes_of(folder) and time.monotonic() < end: time.sleep(0.1)
    return not nodes_of(folder)

class Page(html.parser.HTMLParser):
    void = {"meta", "br", "img", "hr", "link", "input", "col"}
    def __init__(self):
        super().__init__(); self.open, self.bad, self.text, self.outside, self.tags = [], [], "", [], set()
    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.void: self.open.append(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href", "action", "data") and v and not v.startswith("#")]
    def handle_startendtag(self, tag, attrs): self.tags.add(tag)
    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag: self.bad.append((tag, self.getpos()))
    def handle_data(self, data): self.text += data

with tempfile.TemporaryDirectory() as tmp:
    p = lambda *name: os.path.join(tmp, *name)
    tiny.write_model(p("tiny.gguf"), model)
    command = [dilemma, "demo", "--model", p("tiny.gguf"), "--dir", p("demo"), "-t", "1", "--json"]
    def demo(**more): return subprocess.run(command, capture_output=True, text=True, timeout=600, **more)

    # killed in the middle of the profile: no node stays, and the next run goes on
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while child.poll() is None and not os.path.exists(p("demo", "profile.json.part")) and time.monotonic() < end: time.sleep(0.05)
    time.sleep(1)
    child.send_signal(signal.SIGKILL); child.wait()
    check("a killed demo takes its nodes with it", gone(p("demo")), nodes_of(p("demo")))
    check("and leaves no profile under its final name", not os.path.exists(p("demo", "profile.json")))
    r = demo()
    check("the run after it ends well", r.returncode == 0, r.returncode, r.stderr[-2000:])
    if fails: sys.exit(1)
    check("the links were kept from before the kill", re.search(r"^probe .*\(kept\)", r.stderr, re.M), r.stderr)
    check("no node is left", gone(p("demo")))
    out = json.loads(r.stdout)

    # figures against independent ones
    tensors = tiny.tensors_of(p("demo", "student.gguf")).values()
    ratio = sum(b for _, _, b in tensors) / 4 / sum(n for _, n, _ in tensors)
    check("the size ratio", abs(out["ratio_to_fp32"] - ratio) < 1e-9 and ratio <= 0.1275, out["ratio_to_fp32"], ratio)
    e = json.loads(subprocess.run([dilemma, "eval", p("demo", "student.gguf"), "--teacher", p("tiny.gguf"), "--data", p("demo", "text-held-out.txt"), "--format",
                                   "text", "--ctx", "512", "-t", "1", "--json", "--quiet"], capture_output=True, text=True, timeout=600).stdout)
    check("loss and divergence are those of eval", abs(e["loss"] - out["loss_after"]) < 1e-5 and abs(e["kl_mean"] - out["kl_mean"]) < 1e-5, e, out)
    cluster, plan = (json.load(open(p("demo", f))) for f in ("cluster.json", "plan.json"))
    room = {n["name"]: n["memory_bytes"] for n in cluster["nodes"]}
    whole = sum(s["bytes"] for s in plan["stages"])
    check("three unequal machines", len({(n["memory_bytes"], n["throttle"]) for n in cluster["nodes"]}) == 3, cluster["nodes"])
    check("the stages cover the model in order", [s["first_layer"] for s in plan["stages"]] == [0] + [s["last_layer"] + 1 for s in plan["stages"][:-1]]
          and plan["stages"][-1]["last_layer"] == 5, plan["stages"])
    check("more than one machine works, each within its memory", len(plan["stages"]) > 1 and all(s["bytes"] <= room[s["node"]] for s in plan["stages"]), whole, room)
    check("measured seconds are there", 0 < out["measured_token_sec"] < 10 and 0 < out["measured_prefill_sec"] < 60, out)
    held, seen = (open(p("demo", f)).read() for f in ("text-held-out.txt", "text-profile.txt"))
    contexts = [l for l in held.splitlines() if l.startswith("Context: ")]
    check("held-out text is not profiled on", contexts and not [c for c in contexts if c in seen])
    check("questions with both answers", len(out["answers"]) >= 3 and all(a["question"] and a["expected"] for a in out["answers"]))
    check("which are of the held-out part", all(a["question"] in held and a["question"] not in seen for a in out["answers"]))

    # the report stands alone
    page = Page()
    page.feed(open(p("demo", "report.html"), encoding="utf-8").read()); page.close()
    check("the report is whole", not page.bad and not page.open and "svg" in page.tags, page.bad, page.open)
    check("it asks nothing of the outside", not page.outside and "script" not in page.tags, page.outside)
    check("it names the machines, the questions and the ratio", all(n in page.text for n in room) and all(a["question"] in page.text for a in out["answers"])
          and f"{100 * ratio:.2f}" in page.text, page.text[:500])

    # what is done is kept; what is spoilt is made anew
    times = {f: os.stat(p("demo", f)).st_mtime_ns for f in ("profile.json", "plan.json", "student.gguf", "quality.json")}
    r = demo()
    check("a second run keeps all of it", r.returncode == 0 and all(os.stat(p("demo", f)).st_mtime_ns == t for f, t in times.items()), r.stderr[-1500:])
    size = os.path.getsize(p("demo", "student.gguf"))
    os.truncate(p("demo", "student.gguf"), size // 2)
    r = demo()
    check("half a student is made anew", r.returncode == 0 and os.path.getsize(p("demo", "student.gguf")) == size, r.stderr[-1500:])

    # a budget that nothing meets
    r = subprocess.run([*command, "--max-ratio", "0.02"], capture_output=True, text=True, timeout=600)
    check("a budget that no level meets is refused by name", r.returncode not in (0, 1) and re.search("size: .* short", r.stderr.splitlines()[-1]), r.returncode, r.stderr[-800:])
    r = subprocess.run([dilemma, "demo", "--model", p("none.gguf"), "--dir", p("d2")], capture_output=True, text=True, timeout=60)
    check("no such model", r.returncode != 0 and "none.gguf" in r.stderr, r.stderr)
print(f"{len(fails)} failed" if fails else "all good")
sys.exit(1 if fails else 0)

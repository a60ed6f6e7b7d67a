#!/usr/bin/env python3
"""Several models served at once over the same nodes: each answers as alone; one more is loaded and unloaded while a stream of another runs; what
does not fit a node's memory is refused before any byte is sent, and takes nothing from the others. JSON of a schema over two machines."""
import json, os, subprocess, sys, tempfile, threading, urllib.error, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
from serving import DILEMMA, check, done

model = tiny.need_model()
names, MEMORY = ["a", "b"], 7 * 10 ** 6   # each model needs 2.5 to 3 MB on a node: two fit, three do not
procs = []


def start(args, log):
    p = subprocess.Popen([DILEMMA, *args], stdout=subprocess.PIPE, stderr=open(log, "a"), text=True)
    procs.append(p)
    line = p.stdout.readline().strip()
    if not line: sys.exit(f"{args[0]}: {open(log).read()[-2000:]}")
    return line


def ask(url, path, body=None, method=None, key="sesame"):
    r = urllib.request.Request(url + path, json.dumps(body).encode() if body is not None else None, {"Authorization": "Bearer " + key}, method=method)
    try:
        with urllib.request.urlopen(r, timeout=120) as got: return got.status, json.loads(got.read())
    except urllib.error.HTTPError as e: return e.code, json.loads(e.read())


def text(url, name, prompt="Once upon a time", **more):
    status, doc = ask(url, "/v1/completions", {"model": name, "prompt": prompt, "max_tokens": 40, "temperature": 0, **more})
    return doc["choices"][0]["text"] if status == 200 else f"{status} {doc}"


with tempfile.TemporaryDirectory() as tmp:
    try:
        for i, n in enumerate(("one", "two", "three")): tiny.write_model(f"{tmp}/{n}.gguf", model, blocks=4, vocab=4096, seed=i + 1)
        subprocess.run([DILEMMA, "keys", "cluster", f"{tmp}/keys", *names], check=True, capture_output=True)
        where = {n: start(["node", "--listen", "127.0.0.1:0", "--memory", str(MEMORY), "-t", "1", "--key", f"{tmp}/keys/{n}.key", "--allow", f"{tmp}/keys/allowed",
                           "--cache", f"{tmp}/cache-{n}"], f"{tmp}/{n}.log").split()[2] for n in names}
        tiny.write_cluster(f"{tmp}/cluster.json", f"{tmp}/keys", where, MEMORY)
        for n, cut in (("one", 2), ("two", 3), ("three", 2)): tiny.write_plan(f"{tmp}/plan-{n}.json", f"{n}.gguf", [("a", 0, cut), ("b", cut + 1, 5)])
        open(f"{tmp}/api-keys", "w").write("sesame\n")
        over = ["--cluster", f"{tmp}/cluster.json", "--key", f"{tmp}/keys/coordinator.key", "--port", "0", "--api-key-file", f"{tmp}/api-keys", "--deterministic"]
        url = start(["serve", "--model", f"{tmp}/one.gguf", "--plan", f"{tmp}/plan-one.json", "--model", f"{tmp}/two.gguf", "--plan", f"{tmp}/plan-two.json", *over],
                    f"{tmp}/serve.log").removesuffix("/v1")
        alone = start(["serve", "--model", f"{tmp}/one.gguf", "--model", f"{tmp}/two.gguf", "--model", f"{tmp}/three.gguf", "-t", "1", "-c", "256", "--port", "0",
                       "--api-key-file", f"{tmp}/api-keys", "--deterministic"], f"{tmp}/alone.log").removesuffix("/v1")
        wanted = {n: text(alone, n) for n in ("one", "two", "three")}
        check("models differ", len(set(wanted.values())) == 3 and not any(t.startswith("4") for t in wanted.values()), wanted)
        listed = lambda: [m["id"] for m in ask(url, "/v1/models")[1]["data"]]
        check("both are listed", listed() == ["one", "two"], listed())
        for n in ("one", "two"): check(f"{n} over two nodes says what it says alone", text(url, n) == wanted[n], text(url, n), wanted[n])
        status, doc = ask(url, "/v1/completions", {"model": "three", "prompt": "x"})
        check("a model that is not there is named", status == 404 and "'one', 'two'" in str(doc), status, doc)

        schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"enum": [1, 2, 3]}}, "required": ["name", "n"]}
        form = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, "max_tokens": 60, "logit_bias": {"300": 5}}
        got, here = text(url, "one", **form), text(alone, "one", **form)
        try: good = json.loads(got)["n"] in (1, 2, 3)
        except ValueError: good = False
        check("JSON of a schema over two machines, as in one process", good and got == here, got, here)

        load = {"model": f"{tmp}/three.gguf", "plan": f"{tmp}/plan-three.json"}
        chunks = lambda: sum(len(fs) for n in names for _, _, fs in os.walk(f"{tmp}/cache-{n}"))
        before = chunks()
        status, doc = ask(url, "/dilemma/models", load)
        check("a third does not fit and the node says by how much", status == 507 and "too little memory" in str(doc), status, doc)
        check("nothing was sent for it", chunks() == before and listed() == ["one", "two"], before, chunks(), listed())
        check("the others answer as before", text(url, "one") == wanted["one"] and text(url, "two") == wanted["two"])
        check("without the key nothing is loaded", ask(url, "/dilemma/models", load, key="other")[0] == 401)

        streamed = []
        def stream():
            r = urllib.request.Request(url + "/v1/completions", json.dumps({"model": "two", "prompt": "Once upon a time", "max_tokens": 180, "temperature": 0, "stream": True}).encode(),
                                       {"Authorization": "Bearer sesame"})
            for line in urllib.request.urlopen(r, timeout=120):
                if line.startswith(b"data: {"): streamed.append(json.loads(line[6:]))
        t = threading.Thread(target=stream); t.start()
        status, doc = ask(url, "/dilemma/models/one", method="DELETE")
        check("one is unloaded", status == 200 and doc["status"] == "unloaded" and listed() == ["two"], status, doc, listed())
        status, doc = ask(url, "/dilemma/models", load)
        check("now the third fits", status == 200 and doc["status"] == "ready" and doc["name"] == "three", status, doc)
        check("and says what it says alone", text(url, "three") == wanted["three"])
        t.join()
        whole = text(alone, "two", max_tokens=180)
        got = "".join(d["choices"][0]["text"] for d in streamed if "choices" in d and d["choices"])
        check("the stream of the other was not disturbed", got == whole and not any("error" in d for d in streamed), got, whole)
        status, doc = ask(url, "/health")
        check("health names each", status == 200 and doc["models"] == {"two": "ready", "three": "ready"}, status, doc)
    finally:
        if os.environ.get("VERBOSE"): print(open(f"{tmp}/a.log").read(), open(f"{tmp}/b.log").read())
        for p in reversed(procs):
            if p.poll() is None: p.terminate()
            p.wait(timeout=60)
done()

#!/usr/bin/env python3
"""`dilemma export --to llama.cpp`: the printed commands are run, on llama.cpp's own rpc-server and front end; its log says which layer
went where, and the text is that of one process."""
import json, os, re, shlex, signal, socket, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
dilemma, model = os.environ["DILEMMA"], tiny.need_model()
llama = os.environ.get("DILEMMA_LLAMA_BIN", "")
BLOCKS = 6
fails, running = [], []

def check(what, good, *detail):
    print(("ok      " if good else "FAILED  ") + what, *([] if good else detail), flush=True)
    if not good: fails.append(what)

def plan_of(path, entry, cuts):
    """cuts: (node, first layer, last layer) in order."""
    layers = [{"layer": l, "name": "embedding" if l == 0 else "head" if l == BLOCKS + 1 else f"blk.{l - 1}", "node": n, "level": "as is", "types": {}, "bytes": 0}
              for n, a, b in cuts for l in range(a, b + 1)]
    json.dump({"version": 1, "model": {"path": "m", "hash": ""}, "entry": entry, "context": 256, "sequences": 1, "tokens_in": 8, "tokens_out": 8, "token_sec": 1,
               "prefill_sec": 1, "total_sec": 8, "bound_sec": 0, "gap": 1, "solver": "by hand", "solve_sec": 0, "ratio_to_fp32": 0.2, "predicted_damage": 0,
               "damage_measure": "kl", "layers": layers,
               "stages": [dict(node=n, first_layer=a, last_layer=b, bytes=0, compute_sec=0, hop_sec=0) for n, a, b in cuts]}, open(path, "w"))

def free_port():
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); return s.getsockname()[1]

def generate(args):
    r = subprocess.run([os.path.join(llama, "llama-completion"), *args, "-p", "The capital of France is", "-n", "8", "--temp", "0", "-no-cnv", "-lv", "5", "--no-warmup",
                        "-fit", "off"], capture_output=True, text=True, timeout=120, errors="replace")
    return r, {int(l): d for l, d in re.findall(r"layer\s+(\d+) assigned to device (\S+?),", r.stderr + r.stdout)}

with tempfile.TemporaryDirectory() as tmp:
    p = lambda name: os.path.join(tmp, name)
    def export(*more): return subprocess.run([dilemma, "export", "--plan", p("plan.json"), "--cluster", p("cluster.json"), "--model", p("m.gguf"), *more], capture_output=True, text=True, timeout=60)
    tiny.write_model(p("m.gguf"), model, blocks=BLOCKS)
    nodes = [{"name": n, "address": f"127.0.0.{i + 1}:7100", "memory_bytes": 1 << 30, "threads": 1, "device": "CPU", "throttle": 1.0} for i, n in enumerate("abc")]
    json.dump({"version": 1, "nodes": nodes, "links": [], "entry": "a"}, open(p("cluster.json"), "w"))

    plan_of(p("plan.json"), "a", [("a", 0, 2), ("b", 3, 3), ("a", 4, 7)])
    r = export()
    check("a node with two runs of layers is refused by name", r.returncode == 4 and "node a" in r.stderr, r.returncode, r.stderr)
    check("an unknown engine", export("--to", "x").returncode == 2)

    wanted = {"entry first": ("a", [("a", 0, 2), ("b", 3, 5), ("c", 6, 7)]), "entry without layers": ("a", [("c", 0, 1), ("b", 2, 7)]),
              "entry last": ("a", [("b", 0, 4), ("a", 5, 7)])}
    for what, (entry, cuts) in wanted.items():
        plan_of(p("plan.json"), entry, cuts)
        port = free_port()
        out = json.loads(export("--rpc-port", str(port), "--json").stdout)
        text = export("--rpc-port", str(port)).stdout.splitlines()
        check(f"{what}: text and JSON say the same", text[1::2] == [w["command"] for w in out["workers"]] + [out["server"]["command"]], text)
        if not os.path.exists(os.path.join(llama, "ggml-rpc-server")):
            print("SKIPPED: no llama.cpp at DILEMMA_LLAMA_BIN: the commands are not run")
            continue
        try:
            for w in out["workers"]:
                argv = shlex.split(w["command"])
                running.append(subprocess.Popen([os.path.join(llama, "ggml-rpc-server"), *argv[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                                env={**os.environ, "LLAMA_CACHE": p("cache"), "XDG_CACHE_HOME": p("cache")}))
                host, end = argv[argv.index("--host") + 1], time.monotonic() + 20
                while time.monotonic() < end:
                    try: socket.create_connection((host, port), 1).close(); break
                    except OSError: time.sleep(0.1)
            argv = shlex.split(out["server"]["command"])[1:]
            at = argv.index("--port")
            del argv[at:at + 2]  # llama-completion takes all but this
            r, where = generate(argv)
            check(f"{what}: llama.cpp takes the command", r.returncode == 0, r.returncode, r.stderr[-1500:])
            device = {w["node"]: f"RPC{i}[" for i, w in enumerate(out["workers"])}
            right = {l - 1: device.get(n, "CPU") for n, a, b in cuts for l in range(max(a, 1), b + 1)}
            check(f"{what}: every layer is where the plan has it", len(where) >= BLOCKS and all(where[l].startswith(d.rstrip("[")) for l, d in right.items() if l in where), where, right)
            alone = json.loads(subprocess.run([dilemma, "run", p("m.gguf"), "-p", "The capital of France is", "-n", "8", "--temp", "0", "-t", "1", "--json"],
                                              capture_output=True, text=True, timeout=60).stdout)["text"]
            for _ in range(5):  # it loses its last words now and then, when it ends before they are written
                if r.stdout.strip().endswith(alone.strip()): break
                r, where = generate(argv)
            check(f"{what}: the text of one process", r.stdout.strip().endswith(alone.strip()) and len(alone) > 8, r.stdout[-300:], alone)
        finally:
            for c in running: c.terminate(); c.wait()
            running.clear()
print(f"{len(fails)} failed" if fails else "all good")
sys.exit(1 if fails else 0)

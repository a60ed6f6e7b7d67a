#!/usr/bin/env python3
"""The arm64 package under qemu-user, beside the program of this machine (`make packages-test ARCH=arm64`; no root).

    arm64.py PACKAGE.deb SYSROOT       DILEMMA: this machine's program, DILEMMA_TEST_MODEL: whose vocabulary the small model takes

The package is unpacked beside the libraries that it was built with. It needs no glibc newer than Debian 11's, computes the same logits, says the same text,
and a node of it computes half of a ring whose other half and whose coordinator are this machine's."""
import json, os, re, subprocess, sys, tempfile, urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy as np
import tiny
from serving import DILEMMA, check, done

deb, sysroot = map(os.path.abspath, sys.argv[1:3])
model, procs = tiny.need_model(), []


def start(args, log):
    p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=open(log, "a"), text=True)
    procs.append(p)
    line = p.stdout.readline().strip()
    if not line: sys.exit(f"{args}: {open(log).read()[-2000:]}")
    return line


def out(*args): return subprocess.run(args, capture_output=True, text=True, timeout=300)


with tempfile.TemporaryDirectory() as tmp:
    try:
        subprocess.run(["dpkg-deb", "-x", deb, f"{tmp}/root"], check=True)
        arm = ["qemu-aarch64", "-L", sysroot, f"{tmp}/root/usr/bin/dilemma"]
        libs = f"{tmp}/root/usr/lib/aarch64-linux-gnu/dilemma"
        r = out(*arm, "--version")
        check("the program runs", r.returncode == 0 and r.stdout == out(DILEMMA, "--version").stdout, r)
        names = [f"{tmp}/root/usr/bin/dilemma", *(f"{libs}/{f}" for f in sorted(os.listdir(libs)) if f.endswith(".so"))]
        check("it is for arm64, libraries too", all("AArch64" in out("readelf", "-h", f).stdout for f in names), names)
        versions = {tuple(map(int, v.split("."))) for f in names for v in re.findall(r"GLIBC_(\d+\.\d+)", out("readelf", "-VW", f).stdout)}
        check(f"glibc {'.'.join(map(str, max(versions)))} is enough", max(versions) <= (2, 31), versions)
        depends = re.findall(r"(?:^|, )([a-z0-9.+-]+)", out("dpkg-deb", "-f", deb, "Depends").stdout)
        check("it names the packages of what it links with", {"libc6", "libzmq5", "libsodium23", "libmicrohttpd12", "libcurl4", "libopenblas0"} <= set(depends), depends)

        tiny.write_model(f"{tmp}/one.gguf", model, blocks=4, vocab=4096)
        run = ["run", f"{tmp}/one.gguf", "-t", "1", "--quiet"]
        logits = {}
        for who, program in (("arm64", arm), ("here", [DILEMMA])):
            r = out(*program, *run, "--ids", "1,5,9,200,7,33,4,90", "-n", "1", "--exact", "--logits", f"{tmp}/{who}.bin", "--json")
            logits[who] = np.fromfile(f"{tmp}/{who}.bin", np.float32) if r.returncode == 0 else np.zeros(1)
        same = logits["arm64"].shape == logits["here"].shape and float(np.linalg.norm(logits["arm64"] - logits["here"]) / np.linalg.norm(logits["here"]))
        check(f"its logits are this machine's, within {same:.1e}", same is not False and 0 <= same < 2e-3 and logits["here"].size > 8 * 4000, logits)
        text = [out(*program, *run, "-p", "Once upon a time", "-n", "16", "--temp", "0") for program in (arm, [DILEMMA])]
        check("and its text", text[0].returncode == 0 and len(text[1].stdout) > 20 and text[0].stdout == text[1].stdout, text)

        subprocess.run([DILEMMA, "keys", "cluster", f"{tmp}/keys", "a", "b"], check=True, capture_output=True)
        node = lambda n: ["node", "--listen", "127.0.0.1:0", "--memory", "20M", "-t", "1", "--key", f"{tmp}/keys/{n}.key", "--allow", f"{tmp}/keys/allowed", "--cache", f"{tmp}/cache-{n}"]
        where = {n: start([*program, *node(n)], f"{tmp}/{n}.log").split()[2] for n, program in (("a", [DILEMMA]), ("b", arm))}
        tiny.write_cluster(f"{tmp}/cluster.json", f"{tmp}/keys", where, 20 * 10 ** 6)
        tiny.write_plan(f"{tmp}/plan.json", "one.gguf", [("a", 0, 2), ("b", 3, 5)])
        url = start([DILEMMA, "serve", "--model", f"{tmp}/one.gguf", "--plan", f"{tmp}/plan.json", "--cluster", f"{tmp}/cluster.json", "--key", f"{tmp}/keys/coordinator.key",
                     "--detect-sec", "10", "--port", "0"], f"{tmp}/serve.log")
        body = json.dumps({"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}).encode()
        got = json.load(urllib.request.urlopen(urllib.request.Request(url + "/completions", body), timeout=120))["choices"][0]["text"]
        check("half of a ring of both architectures", got.strip() and got.strip() in text[1].stdout, got, text[1].stdout)
    finally:
        for p in reversed(procs):
            if p.poll() is None: p.terminate()
            p.wait(timeout=60)
done()

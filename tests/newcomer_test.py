#!/usr/bin/env python3
"""What a person gets wrong in the first minutes: each mistake ends at once, with its exit status and a line that says what is wrong and what to do."""
import http.server, os, subprocess, sys, tempfile, threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gguf import GGUFWriter
from serving import DILEMMA, MODEL, check, done, need_model

need_model()


class Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_error(404)
    def log_message(self, *_): pass


def header_only(path, arch):
    g = GGUFWriter(path, arch)
    if arch != "llama": g.add_block_count(2)
    g.write_header_to_file(); g.write_kv_data_to_file(); g.write_tensors_to_file(); g.close()


with tempfile.TemporaryDirectory() as tmp:
    env = {**os.environ, "HOME": tmp, "NO_COLOR": "1"}
    for k in ("DILEMMA_API_KEY", "DILEMMA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"): env.pop(k, None)
    other = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    port = other.server_port

    def wrong(what, args, status, *says, lines=1, text=""):
        r = subprocess.run([DILEMMA, *args.split()], input=text, capture_output=True, text=True, env=env, timeout=60, cwd=tmp)
        said = r.stderr.strip().splitlines()
        check(what, r.returncode == status and len(said) <= lines and all(s in (said or [""])[-1] for s in says), f"`dilemma {args}`", r)

    open(f"{tmp}/text.gguf", "w").write("hello")
    open(f"{tmp}/cut.gguf", "wb").write(open(MODEL, "rb").read(20_000_000))
    os.mkdir(f"{tmp}/folder")
    header_only(f"{tmp}/mamba.gguf", "mamba")
    header_only(f"{tmp}/empty.gguf", "llama")
    for c, loads in (("chat", 1), ("serve", 2), ("info", 1)):
        wrong(f"{c}: no such file", f"{c} none.gguf", 5, "none.gguf", *(["dilemma pull"] if c != "info" else []), lines=loads)
        wrong(f"{c}: no model at all", f"{c} text.gguf", 3, "text.gguf: not a GGUF file", lines=loads)
        wrong(f"{c}: a download that broke off", f"{c} cut.gguf", 3, "cut.gguf", "of a file of 20000000 bytes", "fetch it again", lines=loads)
    wrong("a folder for a file", "chat folder", 3, "dilemma import")
    wrong("an architecture that is not known", "run mamba.gguf -p x", 4, '"mamba" is not supported', "llama (Mistral too)")
    wrong("a model without figures", "run empty.gguf -p x", 3, "llama.block_count is missing")
    wrong("a prompt is missing", f"run {MODEL}", 2, "-p TEXT is missing")
    wrong("a GPU that is not there", f"run {MODEL} -p x --device CUDA9", 5, "'CUDA9' is not on this machine; there are: CPU")
    wrong("far too much context", f"serve {MODEL} -c 4000000 --port 0", 8, "free", "KV cache", lines=2)
    wrong("a port that is taken", f"serve {MODEL} --port {port}", 13, f"port {port} on 127.0.0.1 is in use", "--port")
    wrong("a node's port that is taken", f"node --insecure --listen 127.0.0.1:{port}", 13, "in use by another program")
    wrong("an address that is not this machine's", "node --insecure --listen 192.0.2.1:7100", 11, "192.0.2.1")
    wrong("a node that nobody may use", "node", 5, "dilemma node --pair")
    wrong("up without machines", f"up {MODEL}", 2, "dilemma pair", "dilemma serve MODEL")
    wrong("up without a model", "up none.gguf", 5, "dilemma pull")
    wrong("up with a machine that is not there", f"up {MODEL} --insecure --node a=127.0.0.1:1", 11, "127.0.0.1:1")
    wrong("chat without a server", "chat --url http://127.0.0.1:1", 11, "dilemma serve MODEL", "dilemma chat MODEL")
    wrong("chat with something else", f"chat --url http://127.0.0.1:{port}", 11, "not as a dilemma server")
    wrong("top of nobody", "top --url http://127.0.0.1:1 --once", 11, "is `dilemma serve` running there?")
    wrong("top of something else", f"top --url http://127.0.0.1:{port} --once", 11, "is that a dilemma server?")
    wrong("pairing with nobody is said before the code is asked for", "pair 127.0.0.1:1", 11, "dilemma node --pair", lines=2)
    wrong("pairing with a name that nobody has", "pair none.invalid:7100", 11, "none.invalid")
    wrong("pairing without a code", f"pair 127.0.0.1:{port}", 2, "its code is wanted")
    wrong("pairing with something else", f"pair 127.0.0.1:{port} --code 12345678", 11, "dilemma node --pair")
    wrong("a code of four digits", f"pair 127.0.0.1:{port} --code 1234", 2, "8 digits")
    wrong("pulling what is not there", f"pull http://127.0.0.1:{port}/m.gguf", 5, "no such file or model")
    wrong("pulling from nobody", "pull http://127.0.0.1:1/m.gguf", 11, "127.0.0.1:1")
    wrong("a command that is mistyped", "serv", 2, "did you mean serve?")
    wrong("an option that is mistyped", "serve --prot 80", 2, "did you mean --port?")
    wrong("the beginning of an option", "serve --detect 1", 2, "did you mean --detect-sec?")
    wrong("a number that is none", "serve --port eighty", 2, "whole number")
    r = subprocess.run([DILEMMA, "doctor", "--json", "--url", f"http://127.0.0.1:{port}"], capture_output=True, text=True, env=env, timeout=60)
    check("doctor: a server of another kind", r.returncode == 11 and "not as a dilemma server" in r.stdout, r.stdout)
    if os.getuid() == 0 and hasattr(os, "setresuid"):
        secret, home = f"{tmp}/secret.gguf", tempfile.mkdtemp()
        open(secret, "w").write("x"); os.chmod(secret, 0); os.chmod(tmp, 0o755); os.chmod(home, 0o755)
        def as_nobody(*args):
            return subprocess.run([DILEMMA, *args], capture_output=True, text=True, env={**env, "HOME": home}, timeout=60, cwd=home, user=65534, group=65534, extra_groups=[])
        try: r = as_nobody("--version")
        except PermissionError: r = None
        if r and r.returncode == 0:
            r = as_nobody("chat", secret)
            check("a file that may not be read", r.returncode == 6 and "secret.gguf: Permission denied" in r.stderr, r)
            r = as_nobody("keys", "new")
            check("a home that may not be written", r.returncode == 6 and "Permission denied" in r.stderr, r)
        else: print("SKIPPED part: another user cannot start the program here")
        os.rmdir(home)
    other.shutdown()
done()

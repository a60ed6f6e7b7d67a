#!/usr/bin/env python3
"""`dilemma pull` against a server that speaks the hub's paths, breaks off, lies about lengths and redirects; and the cache that it
shares with the hub's own library."""
import hashlib, http.server, json, os, random, shutil, struct, subprocess, sys, tempfile, threading
from pathlib import Path
sys.path.insert(0, os.path.dirname(__file__))
from serving import DILEMMA, check, done

TOKEN = "hf_secret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
tmp = Path(tempfile.mkdtemp(prefix="dilemma-pull-"))
rng = random.Random(7)
BIG = rng.randbytes(300_000)
OTHER = rng.randbytes(70_000)
FILES = {"model-q8_0.gguf": BIG, "model-q4_0.gguf": OTHER, "config.json": b'{"a": 1}\n', "sub dir/x.gguf": b"small", "README.md": b"hello"}


def git_sha1(b): return hashlib.sha1(b"blob %d\0" % len(b) + b).hexdigest()


class World:
    """What the servers do; reset by each case."""
    def __init__(self): self.reset()
    def reset(self, **how):
        self.log, self.lock = [], threading.Lock()     # (host, method, path, Range, Authorization)
        self.broken = 0                                # how many answers have been broken off
        self.breaks = how.get("breaks", 0)             # break off so many range answers half way
        self.gone = how.get("gone", False)             # break off every one at once
        self.ranges = how.get("ranges", True)
        self.lie = how.get("lie", None)                # "size": X-Linked-Size too small; "range": another Content-Range; "short", "bytes"
        self.private = how.get("private", False)
        self.files = how.get("files", FILES)
        self.redirect = how.get("redirect", True)
        self.first = how.get("first", None)            # break off everything after so many answers
    def gets(self, host=None): return [l for l in self.log if l[1] == "GET" and "/api/" not in l[2] and (host is None or l[0] == host)]


W = World()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def plain(self, code, body=b"", **headers):
        self.send_response(code)
        for k, v in headers.items(): self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET": self.wfile.write(body)

    def do_HEAD(self): self.answer()
    def do_GET(self): self.answer()

    def answer(self):
        host, cdn = self.headers["Host"], self.server is cdn_server
        auth = self.headers.get("Authorization")
        with W.lock: W.log.append((host, self.command, self.path, self.headers.get("Range"), auth))
        if not cdn and W.private and auth != f"Bearer {TOKEN}": return self.plain(401, b"{}")
        if self.path.startswith("/moved/"): return self.plain(307, Location=self.path.replace("/moved/name", "/org/name"))
        if self.path.startswith("/api/models/org/name/revision/"):
            if self.path.rsplit("/", 1)[1] not in ("main", "v1", COMMIT): return self.plain(404, b"{}")
            names = [*W.files, "../../evil.gguf", "/etc/evil.gguf"]
            return self.plain(200, json.dumps({"sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}).encode())
        parts = self.path.split("/resolve/")
        if cdn: data = W.files[self.path[1:].replace("%20", " ")]
        elif self.path == "/dl/plain/file.bin": data = BIG
        elif self.path == "/dl/nohead/file.bin":
            if self.command == "HEAD": return self.plain(501)
            data = BIG
        elif self.path == "/dl/elsewhere/file.bin": return self.plain(302, Location=f"{CDN}/model-q8_0.gguf")
        elif len(parts) == 2 and parts[0] == "/org/name":
            name = parts[1].split("/", 1)[1].replace("%20", " ")
            if name not in W.files: return self.plain(404, b"no")
            data = W.files[name]
            lfs = name.endswith((".gguf", ".safetensors"))
            etag = hashlib.sha256(data).hexdigest() if lfs else git_sha1(data)
            if lfs and W.redirect:
                size = len(data) - 1000 if W.lie == "size" else len(data)
                return self.plain(302, Location=f"{CDN}/{name.replace(' ', '%20')}", X_Repo_Commit=COMMIT, X_Linked_Etag=f'"{etag}"', X_Linked_Size=str(size),
                                  ETag='"cdn"', Accept_Ranges="bytes")
            if not lfs: return self.body(data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            return self.body(data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else: return self.plain(404, b"no")
        self.body(data, {"ETag": '"cdn"'})

    def body(self, data, headers):
        r = self.headers.get("Range")
        if W.lie == "bytes": data = data[:-1] + bytes([data[-1] ^ 1])
        a, b, code = 0, len(data) - 1, 200
        if r and W.ranges:
            a, b = (int(x) if x else len(data) - 1 for x in r.removeprefix("bytes=").split("-"))
            code = 206
        part = data[a:b + 1]
        with W.lock:
            cut = code == 206 and (W.gone or W.broken < W.breaks or (W.first is not None and len(W.gets()) > W.first))
            W.broken += cut
        self.send_response(code)
        for k, v in headers.items(): self.send_header(k, v)
        if code == 206: self.send_header("Content-Range", f"bytes {a + (W.lie == 'range')}-{b}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD": return
        try: self.wfile.write(part[:len(part) // 2] if cut or W.lie == "short" else part)
        except OSError: pass
        if cut or W.lie == "short":
            self.wfile.flush()
            self.close_connection = True


def server():
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    s.daemon_threads = True
    s.handle_error = lambda *_: None   # a client that ends while it is being answered
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s


hub_server, cdn_server = server(), server()
HUB = f"http://127.0.0.1:{hub_server.server_address[1]}"
CDN = f"http://localhost:{cdn_server.server_address[1]}"   # another name: another host to a client
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "http", "HTTP", "all_", "ALL_"))}


def pull(what, *args, home=None, token=None):
    home = home or Path(tempfile.mkdtemp(dir=tmp))
    env = {**ENV, "HF_ENDPOINT": HUB, "HF_HOME": str(home), "XDG_CACHE_HOME": str(home / "xdg"), "no_proxy": "*"}
    if token: env["HF_TOKEN"] = token
    r = subprocess.run([DILEMMA, "pull", what, *args], capture_output=True, text=True, env=env, timeout=120, cwd=home)
    r.home, r.path = home, Path(r.stdout.strip()) if r.stdout.strip() else None
    return r


def good(r, data): return r.returncode == 0 and r.path.read_bytes() == data


small = ("--chunk", "16KiB")
try:
    r = pull("org/name:q8_0", *small, token=TOKEN)
    check("a file by a word of its name", good(r, BIG), r)
    root = r.home / "hub" / "models--org--name"
    blob = root / "blobs" / hashlib.sha256(BIG).hexdigest()
    check("the cache's layout", r.path == root / "snapshots" / COMMIT / "model-q8_0.gguf" and r.path.is_symlink() and not os.readlink(r.path).startswith("/")
          and r.path.resolve() == blob.resolve() and (root / "refs" / "main").read_text() == COMMIT, sorted(root.rglob("*")))
    check("nothing is left over", not list(root.rglob("*.dilemma-*")), sorted(root.rglob("*")))
    check("in ranges, several at once", len({l[3] for l in W.gets(CDN[7:])}) == -(-len(BIG) // 16384), W.gets())
    check("the token goes to the hub", all(l[4] == f"Bearer {TOKEN}" for l in W.log if l[0] == HUB[7:]))
    check("and to no other host", W.gets(CDN[7:]) and all(l[4] is None for l in W.log if l[0] == CDN[7:]), W.log)
    home, W.log = r.home, []
    r = pull("org/name:q8_0", home=home)
    check("again: nothing is fetched", good(r, BIG) and not W.gets() and "0 of 1 files fetched" in r.stderr, r, W.log)
    (root / "snapshots" / COMMIT / "model-q8_0.gguf").unlink()
    r = pull("org/name:model-q8_0.gguf", home=home)
    check("a blob that is there is only linked", good(r, BIG) and not W.gets(), W.log)
    r = pull("org/name:sub dir/x.gguf", home=home)
    check("a file in a folder, with a space", good(r, b"small"), r)
    r = pull(f"{HUB}/org/name/blob/main/model-q4_0.gguf", home=home)
    check("a page's address", good(r, OTHER) and r.path.parent == root / "snapshots" / COMMIT, r)

    W.reset()
    r = pull("org/name")
    check("several files: named", r.returncode == 2 and "model-q8_0.gguf" in r.stderr and "evil" not in r.stderr, r)
    r = pull("org/name:q5")
    check("no such file: what there is", r.returncode == 5 and "model-q4_0.gguf" in r.stderr, r)
    r = pull("org/name:../../evil.gguf")
    check("a path that leaves the folder", r.returncode == 5 and not list(tmp.rglob("evil*")), r)
    check("no such model", pull("org/nothing").returncode == 5)
    check("no such revision", pull("org/name:q8_0", "--revision", "v9").returncode == 5)
    r = pull("org/name:q8_0", "--revision", "v1")
    check("a revision has its ref", good(r, BIG) and (r.path.parents[2] / "refs" / "v1").read_text() == COMMIT, r)
    for bad in ("name", "org/", "/etc/passwd", "org/name/x", "org/..", "file:///etc/passwd", "org/na me", "org/name:"):
        check(f"'{bad}' is refused", pull(bad).returncode == 2, pull(bad))

    W.reset(private=True)
    r = pull("org/name:q8_0")
    check("private: exit 12 and the cure", r.returncode == 12 and "HF_TOKEN" in r.stderr, r)
    check("private, with the token", good(pull("org/name:q8_0", token=TOKEN), BIG))

    # breaks
    W.reset(breaks=7)
    r = pull("org/name:q8_0", *small)
    check("answers that break off are taken up where they broke", good(r, BIG) and W.broken == 7, r)
    again = [l[3] for l in W.gets(CDN[7:])]
    check("only what is missing is asked for again", len(again) == len(set(again)) == -(-len(BIG) // 16384) + 7, sorted(again))
    W.reset(first=12)
    r = pull("org/name:q8_0", *small, "--connections", "2")
    check("a server that goes away: an error", r.returncode == 11 and list(r.home.rglob("*.dilemma-part")), r)
    home = r.home
    W.reset()
    r = pull("org/name:q8_0", *small, home=home)
    check("the next call goes on", good(r, BIG) and 0 < len(W.gets(CDN[7:])) <= -(-len(BIG) // 16384) - 3 and not list(home.rglob("*.dilemma-*")), r, W.gets(CDN[7:]))
    W.reset(first=6)
    r = pull("org/name:q8_0", *small, "--connections", "2")
    W.reset(files={**FILES, "model-q8_0.gguf": OTHER})
    home = r.home
    r = pull("org/name:q8_0", *small, home=home)
    check("another file under the name: from the start", good(r, OTHER), r)

    # lies
    for lie, code in (("size", 3), ("range", 3), ("short", 11), ("bytes", 3)):
        W.reset(lie=lie)
        r = pull("org/name:q8_0", *small)
        check(f"a server that lies ({lie}): exit {code}", r.returncode == code and not list(r.home.rglob("*.gguf")), r)
        if lie == "bytes": check("a wrong hash: thrown away", not [p for p in r.home.rglob("*") if p.is_file()], list(r.home.rglob("*")))
    W.reset(ranges=False)
    check("a server without ranges", good(pull("org/name:q8_0", *small), BIG))
    W.reset(redirect=False)
    check("a hub that holds the bytes itself", good(pull("org/name:q8_0", *small), BIG))

    # other addresses
    W.reset()
    sha = hashlib.sha256(BIG).hexdigest()
    r = pull(f"{HUB}/dl/plain/file.bin", *small)
    check("an address: under its own name, here", r.returncode == 0 and (r.home / "file.bin").read_bytes() == BIG, r)
    check("it does not overwrite", pull(f"{HUB}/dl/plain/file.bin", home=r.home).returncode == 2)
    r = pull(f"{HUB}/dl/nohead/file.bin", "-o", "x.gguf", "--sha256", sha)
    check("a server without HEAD", r.returncode == 0 and (r.home / "x.gguf").read_bytes() == BIG, r)
    r = pull(f"{HUB}/dl/plain/file.bin", "--sha256", "0" * 64)
    check("another hash: exit 3", r.returncode == 3 and not (r.home / "file.bin").exists(), r)
    W.reset()
    r = pull(f"{HUB}/dl/elsewhere/file.bin", token=TOKEN)
    check("a redirect to another host: without the token", r.returncode == 0 and all(l[4] is None for l in W.log if l[0] == CDN[7:]) and W.gets(CDN[7:]), r, W.log)
    r = pull(f"{CDN}/model-q8_0.gguf", token=TOKEN)
    check("the token is not for other hosts", r.returncode == 0 and W.log[-1][4] is None, r)

    # two at once
    W.reset()
    home = Path(tempfile.mkdtemp(dir=tmp))
    rs = [None, None]
    def one(i): rs[i] = pull("org/name:q8_0", *small, home=home)
    ts = [threading.Thread(target=one, args=(i,)) for i in range(2)]
    [t.start() for t in ts]; [t.join() for t in ts]
    check("two at once: one is done, the other too or told", sorted(r.returncode for r in rs) in ([0, 0], [0, 13]), rs)

    # a checkpoint, converted on the way
    def safetensors(path, shapes):
        head, at, body = {}, 0, b""
        for name, shape in shapes.items():
            n = 4 * __import__("math").prod(shape)
            head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
            body += struct.pack(f"<{n // 4}f", *(rng.uniform(-1, 1) for _ in range(n // 4)))
            at += n
        h = json.dumps(head).encode()
        path.write_bytes(struct.pack("<Q", len(h)) + h + body)

    ck = tmp / "ck"
    ck.mkdir()
    c = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 40, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
         "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2}
    (ck / "config.json").write_text(json.dumps(c))
    (ck / "pytorch_model.bin").write_bytes(b"not wanted where there are safetensors")
    l = "model.layers.0."
    safetensors(ck / "model.safetensors", {"model.embed_tokens.weight": [40, 16], "model.norm.weight": [16], l + "input_layernorm.weight": [16],
                l + "post_attention_layernorm.weight": [16], l + "self_attn.q_proj.weight": [16, 16], l + "self_attn.k_proj.weight": [8, 16],
                l + "self_attn.v_proj.weight": [8, 16], l + "self_attn.o_proj.weight": [16, 16], l + "mlp.gate_proj.weight": [24, 16],
                l + "mlp.up_proj.weight": [24, 16], l + "mlp.down_proj.weight": [16, 24]})
    W.reset(files={p.name: p.read_bytes() for p in ck.iterdir()})
    r = pull("org/name")
    subprocess.run([DILEMMA, "import", str(ck), "-o", str(tmp / "want.gguf"), "--name", "org/name", "--quiet"], check=True)
    check("a checkpoint becomes the GGUF file that import makes", good(r, (tmp / "want.gguf").read_bytes()), r)
    check("only what it needs is fetched", not [l for l in W.log if "pytorch" in l[2]], W.log)
    W.log = []
    check("converted once", pull("org/name", home=r.home).path == r.path and not W.gets())

    # the hub's own library reads what we fetched, and we what it fetched
    try:
        os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        import huggingface_hub
    except ImportError: print("SKIPPED part: no huggingface_hub (tools/deps python): the shared cache is checked by its layout alone")
    else:
        W.reset()
        r = pull("org/name:q8_0")
        got = huggingface_hub.hf_hub_download("org/name", "model-q8_0.gguf", cache_dir=r.home / "hub", local_files_only=True)
        check("the hub's library finds what we fetched", Path(got) == r.path, got)
        info = huggingface_hub.scan_cache_dir(r.home / "hub")
        check("and has nothing to complain", not info.warnings and len(info.repos) == 1, info)
        home = Path(tempfile.mkdtemp(dir=tmp))
        huggingface_hub.hf_hub_download("org/name", "model-q4_0.gguf", cache_dir=home / "hub", endpoint=HUB)
        W.reset()
        r = pull("org/name:q4_0", home=home)
        check("we find what the hub's library fetched", good(r, OTHER) and not W.gets(), r, W.log)
finally: shutil.rmtree(tmp)
done()

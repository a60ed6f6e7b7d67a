#!/usr/bin/env python3
"""Every command in README.md and docs/*.md that needs no foreign hardware runs: the fenced blocks of `sh` and `python`, page by page, in an empty
folder with a small model, nodes on loopback, and a hub of our own in place of the names that the pages use (NAMES below).

A comment above a block says what is not run, and why; a command then is named by how it begins:
    <!-- not run: the whole block's reason -->
    <!-- not run `scp`: there is one machine -->
A comment that fits no command fails, and so does one without a reason. The words of the last run are counted and printed."""
import hashlib, http.server, json, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, urllib.request
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny
from serving import check, done

SOURCE = Path(os.environ.get("DILEMMA_SOURCE", Path(__file__).resolve().parent.parent))
DILEMMA = os.path.abspath(os.environ["DILEMMA"])
MODEL = tiny.need_model()
TMP = Path(tempfile.mkdtemp(prefix="dilemma-docs-"))
LIMIT_SEC = 300


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# --- a hub ---------------------------------------------------------------------------------------------------------------------

class Hub(http.server.BaseHTTPRequestHandler):
    """A repository has one GGUF file for each word that a page asks for; any other path is the model as well."""
    model = b""

    def log_message(self, *_): pass

    def do_HEAD(self): self.do_GET()

    def do_GET(self):
        if self.path.startswith("/api/models/"):
            names = ["model.gguf"] if "-GGUF" not in self.path else ["model-q8_0.gguf", "model-q4_k_m.gguf"]
            body, extra = json.dumps({"sha": "0" * 39 + "1", "siblings": [{"rfilename": n} for n in names]}).encode(), {}
        else:
            sha = hashlib.sha256(self.model).hexdigest()
            body, extra = self.model, {"ETag": f'"{sha}"', "X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(self.model)), "X-Repo-Commit": "0" * 39 + "1"}
        self.send_response(200)
        for k, v in extra.items(): self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET": self.wfile.write(body)


# --- pages ---------------------------------------------------------------------------------------------------------------------

def blocks(page):
    """(language, line number, text, [(command or None, reason)]) of each fenced block."""
    lines, i = page.read_text("utf-8").split("\n"), 0
    while i < len(lines):
        m = re.match(r"```(\w+)\s*$", lines[i])
        if not m:
            i += 1
            continue
        marks, above = [], i - 1
        while above >= 0 and (k := re.match(r"<!-- not run(?: `([^`]+)`)?: *(.*?) *-->$", lines[above])):
            marks.append((k.group(1), k.group(2)))
            above -= 1
        end = lines.index("```", i + 1)
        yield m.group(1), i + 1, "\n".join(lines[i + 1:end]), marks
        i = end + 1


class Page:
    """One page's folder, names, servers and shell variables."""
    def __init__(self, path, model):
        self.path, self.dir = path, TMP / path.stem
        self.ports = {name: free_port() for name in "abc"}
        self.http = free_port()
        self.running, self.server, self.paired = [], None, {}
        (self.dir / "bin").mkdir(parents=True)
        shutil.copy(model, self.dir / "model.gguf")
        (self.dir / "text.txt").write_text("\n".join(p.read_text("utf-8") for p in sorted((SOURCE / "docs").glob("S*.md"))), "utf-8")
        paragraph = {"context": "The machine a holds six layers and b holds four.", "qas": [
            {"id": str(i), "question": q, "answers": [{"text": t, "answer_start": at}]} for i, (q, t, at) in enumerate([("Who holds six?", "a", 12), ("How many has b?", "four", 43)])]}
        (self.dir / "train.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [paragraph] * 8}]}))
        # servers get this page's port, and an HTTP error is a failure of curl
        (self.dir / "bin/dilemma").write_text(f'#!/bin/bash\ncase " $* " in *" --port "*|*" --help "*) ;; " serve "*|" up "*) set -- "$@" --port {self.http} ;; esac\nexec {DILEMMA} "$@"\n')
        (self.dir / "bin/curl").write_text(f"#!/bin/bash\nexec {shutil.which('curl')} --fail-with-body -sS \"$@\"\n")
        for tool in ("dilemma", "curl"): (self.dir / "bin" / tool).chmod(0o755)
        self.env = {**os.environ, "PATH": f"{self.dir}/bin:{os.environ['PATH']}", "HOME": str(self.dir), "HF_ENDPOINT": HUB, "HF_HOME": str(self.dir / "hub"),
                    "XDG_CACHE_HOME": str(self.dir / "cache"), "XDG_STATE_HOME": str(self.dir / "state"), "NO_COLOR": "1", "DILEMMA_URL": f"http://127.0.0.1:{self.http}"}
        self.env.pop("HF_TOKEN", None)
        # what the pages use for machines and places that a reader has
        self.names = [("0.0.0.0:7100", f"127.0.0.1:{self.ports['a']}"), ("0.0.0.0:7101", f"127.0.0.1:{free_port()}"), ("localhost:8080", f"127.0.0.1:{self.http}"), ("/etc/dilemma", f"{self.dir}/etc"),
                      ("https://example.org", HUB), ("--sha256 HEX", "--sha256 " + hashlib.sha256(Hub.model).hexdigest()),
                      ("--key b.key --allow allowed", "--key keys/b.key --allow keys/allowed")]
        self.names += [(f"10.0.0.{i + 1}:7100", f"127.0.0.1:{self.ports[n]}") for i, n in enumerate("abc")]

    def named(self, command):
        for a, b in self.names: command = command.replace(a, b)
        return command

    def start(self, command):
        child = subprocess.Popen(["bash", "-c", "exec " + command], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.running.append(child)
        said = []
        for line in child.stdout:
            said.append(line)
            if re.search(r"127\.0\.0\.1:\d+", line) and re.match(r"http|.*listen|node", line): break
        threading.Thread(target=lambda: [None for _ in child.stdout], daemon=True).start()
        return child, said

    def healthy(self, child):
        end = time.monotonic() + 120
        while time.monotonic() < end and child.poll() is None:
            try: return urllib.request.urlopen(f"http://127.0.0.1:{self.http}/health", timeout=10).status == 200
            except OSError: time.sleep(0.05)
        return False

    def stop(self, child):
        if child.poll() is None: child.send_signal(signal.SIGTERM)
        try: child.wait(30)
        except subprocess.TimeoutExpired: child.kill(); child.wait()

    def shows_code(self, command):
        """A machine with a home of its own whose node waits to be paired: the process, its address and its code."""
        if "--listen" not in command: command += f" --listen 127.0.0.1:{free_port()}"
        home = self.dir / f"machine-{len(self.running)}"
        home.mkdir()
        child = subprocess.Popen(["bash", "-c", "exec " + command], cwd=self.dir, env={**self.env, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.running.append(child)
        said = ""
        while "dilemma pair " not in said:
            line = child.stdout.readline()
            if not line: raise RuntimeError(said)
            said += line
        threading.Thread(target=lambda: [None for _ in child.stdout], daemon=True).start()
        return child, re.search(r"dilemma pair (\S+)", said).group(1), re.search(r"^ +(\d{4} \d{4})$", said, re.M).group(1)

    def play_pairing(self, words, command):
        """One side is the page's command, the other and the person between are played."""
        dilemma = lambda *args, text="": subprocess.run([self.dir / "bin/dilemma", *args], cwd=self.dir, env=self.env, input=text, capture_output=True, text=True, timeout=LIMIT_SEC)
        if words[1] == "node":
            _, address, code = self.shows_code(command)
            p = dilemma("pair", "--keys", "played", "--code", code, f"m{len(self.running)}={address}")
        else:
            codes = ""
            for name, port in self.ports.items():
                if not any(w.endswith(f":{port}") for w in words[2:]): continue
                self.paired[port], _, code = self.shows_code(f"dilemma node --pair --name {name} --memory 300M -t 1 --listen 127.0.0.1:{port}")
                codes += code + "\n"
            p = dilemma(*words[1:], text=codes)
        return p.returncode == 0, p.stdout + p.stderr

    def need_nodes(self):
        """The other machines of the page: a node for each key that has none yet."""
        for name, port in self.ports.items():
            key = self.dir / f"keys/{name}.key"
            if key.exists() and port in self.paired: self.stop(self.paired.pop(port))
            with socket.socket() as s:
                if not key.exists() or s.connect_ex(("127.0.0.1", port)) == 0: continue
            self.start(f"dilemma node --listen 127.0.0.1:{port} --key {key} --allow keys/allowed --cache cache-{name}")

    def need_server(self):
        if self.server is None or self.server.poll() is not None:
            self.server, _ = self.start("dilemma serve model.gguf --name student")
            if not self.healthy(self.server): raise RuntimeError("no server")

    def run(self, command):
        """(good, output)"""
        command = self.named(command)
        words = command.split("  #")[0].split()
        if words[:2] == ["dilemma", "node"] and "--pair" in words or words[:2] == ["dilemma", "pair"] and len(words) > 2: return self.play_pairing(words, command.split("  #")[0])
        if words[:2] == ["dilemma", "node"]:
            child, said = self.start(command)
            return child.poll() is None and said != [], "".join(said)
        if "--help" not in words and ("--node" in words or "--cluster" in words or "--keys" in words): self.need_nodes()
        if "now.json" in words: shutil.copy(self.dir / "cluster.json", self.dir / "now.json")
        if words[:1] == ["dilemma"] and words[1] in ("serve", "up") and "--help" not in words:
            if self.server: self.stop(self.server)
            self.server, said = self.start(command)
            return self.healthy(self.server), "".join(said[-20:])
        if words[0] == "curl": self.need_server()
        variable = re.match(r"([A-Z_]+)=\$\((.*?)\)", command)
        p = subprocess.run(["bash", "-c", variable.group(2) if variable else command], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                           timeout=LIMIT_SEC)
        if variable: self.env[variable.group(1)] = p.stdout.strip()
        return p.returncode == 0, p.stdout[-1500:] + p.stderr[-1500:]

    def run_python(self, text):
        self.need_server()
        p = subprocess.run([sys.executable, "-c", self.named(text)], cwd=self.dir, env=self.env, capture_output=True, text=True, errors="replace", timeout=LIMIT_SEC)
        return p.returncode == 0 and p.stdout != "", p.stdout[-1500:] + p.stderr[-1500:]


def commands(text):
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.strip() for line in joined.split("\n") if line.strip() and not line.lstrip().startswith("#")]


ran, left = 0, {}


def run_block(page, language, line, text, marks):
    global ran
    where = f"{page.path.name}:{line}"
    used = set()
    todo = [text] if language == "python" else commands(text)
    for command in todo:
        mark = next((m for m in marks if m[0] is None or command.startswith(m[0])), None)
        if mark:
            used.add(mark)
            left.setdefault(mark[1], []).append(f"{where} {command[:60]}")
            continue
        begin = time.monotonic()
        try: good, said = page.run_python(command) if language == "python" else page.run(command)
        except subprocess.TimeoutExpired: good, said = False, f"still runs after {LIMIT_SEC} s"
        except (OSError, RuntimeError) as e: good, said = False, str(e)
        ran += 1
        check(f"{where} {command.splitlines()[0][:90]} ({time.monotonic() - begin:.1f} s)", good, "\n" + said)
    for m in marks:
        check(f"{where}: what is marked as not run is there, with a reason", m in used and len(m[1]) > 5, m)


os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})  # a thread each: small models on two wait for each other
tiny.write_model(str(TMP / "tiny.gguf"), MODEL, vocab=1024, width=64, ff=128, blocks=3)
Hub.model = (TMP / "tiny.gguf").read_bytes()
hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=hub.serve_forever, daemon=True).start()
HUB = f"http://127.0.0.1:{hub.server_address[1]}"
only = sys.argv[1:]
for path in [SOURCE / "README.md", *sorted((SOURCE / "docs").glob("*.md"))]:
    found = [b for b in blocks(path) if b[0] in ("sh", "bash", "console", "python")]
    if not found or (only and path.name not in only): continue
    page = Page(path, TMP / "tiny.gguf")
    try:
        for b in found: run_block(page, *b)
    finally:
        for child in page.running: page.stop(child)
for reason, which in left.items(): print(f"not run ({len(which)}): {reason}", *which, sep="\n    ")
print(f"{ran} commands ran, {sum(map(len, left.values()))} did not")
if not only: check("most commands run", ran >= 2 * sum(map(len, left.values())) and ran >= 25)
shutil.rmtree(TMP, ignore_errors=True)
done()

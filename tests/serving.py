"""A `dilemma serve` on the test model, for the tests that speak to one."""
import http.client, json, os, subprocess, sys, time

MODEL = os.environ.get("DILEMMA_TEST_MODEL", "")
DILEMMA = os.environ["DILEMMA"]
NAME = "smol"
fails = []


def skip(why):
    print("SKIPPED: " + why, flush=True)
    sys.exit(77)


def need_model():
    if not os.path.exists(MODEL): skip("no test model (make model)")


def check(what, good, *detail):
    print(("ok      " if good else "FAILED  ") + what, *([] if good else detail), flush=True)
    if not good: fails.append(what)


def done():
    sys.exit(1 if fails else 0)


class Serve:
    """with Serve("--slots", "2") as s: s.base is http://127.0.0.1:PORT"""

    def __init__(self, *args, env={}, stderr=None):
        # One thread: on a machine with other work two wait for each other at every barrier, twenty times as long.
        self.p = subprocess.Popen([DILEMMA, "serve", "--model", MODEL, "--port", "0", "-t", "1", "-c", "1024", "--name", NAME, *args],
                                  stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **env})
        self.base = self.p.stdout.readline().strip().removesuffix("/v1")
        self.port = int(self.base.rsplit(":", 1)[1]) if self.base else 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None: self.p.terminate()
        try: self.p.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()

    def request(self, method, path, body=None, headers={}):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        c.request(method, path, body if isinstance(body, (str, bytes, type(None))) else json.dumps(body), headers)
        r = c.getresponse()
        text = r.read().decode("utf-8")
        c.close()
        return r.status, json.loads(text) if r.getheader("Content-Type", "").startswith("application/json") else text

    def metric(self, name):
        for line in self.request("GET", "/metrics")[1].splitlines():
            if line.startswith(f"dilemma_{name} "): return float(line.split()[1])

    def wait_metric(self, name, wanted, sec=60):
        end = time.time() + sec
        while time.time() < end:
            if wanted(self.metric(name)): return True
            time.sleep(0.01)
        return False

"""Headless Chromium over its debugging pipe: no driver, no port."""
import base64, json, os, select, shutil, subprocess, tempfile, time


def find():
    return next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


class Browser:
    """with Browser() as b: b.open(url); b.eval("document.title")"""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="dilemma-browser-")
        to_r, self.to = os.pipe()
        self.back, back_w = os.pipe()
        def fds():
            os.dup2(to_r, 103), os.dup2(back_w, 104)   # out of each other's way first
            os.dup2(103, 3), os.dup2(104, 4)
        self.p = subprocess.Popen([find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking",
                                   "--disable-component-update", f"--user-data-dir={self.profile}", "about:blank"],
                                  preexec_fn=fds, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_r), os.close(back_w)
        self.n, self.rest, self.events = 0, b"", []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"): self.call(domain + ".enable")

    def __enter__(self): return self

    def __exit__(self, *_):
        self.p.terminate()
        try: self.p.wait(20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def read(self, end):
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(0, end - time.time()))[0]: raise TimeoutError("the browser does not answer")
            data = os.read(self.back, 1 << 20)
            if not data: raise EOFError("the browser ended")
            self.rest += data
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def call(self, method, sec=120, **params):
        self.n += 1
        m = {"id": self.n, "method": method, "params": params}
        if getattr(self, "session", None): m["sessionId"] = self.session
        os.write(self.to, json.dumps(m).encode() + b"\0")
        end = time.time() + sec
        while True:
            got = self.read(end)
            if got.get("id") == self.n:
                if "error" in got: raise RuntimeError(f"{method}: {got['error']}")
                return got["result"]
            if "method" in got: self.events.append(got)

    def eval(self, js):
        r = self.call("Runtime.evaluate", expression=js, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in r: raise RuntimeError(r["exceptionDetails"].get("exception", {}).get("description", r))
        return r["result"].get("value")

    def wait(self, js, sec=90):
        end = time.time() + sec
        while time.time() < end:
            if self.eval(js): return True
            time.sleep(0.05)
        return False

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def view(self, width, height, dark=False, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def key(self, key, code=None, vk=0, text=""):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, windowsVirtualKeyCode=vk, **({"text": text} if text and kind == "keyDown" else {}))

    def type(self, text): self.call("Input.insertText", text=text)

    def screenshot(self, path, whole=True):
        shot = self.call("Page.captureScreenshot", format="webp", quality=70, captureBeyondViewport=whole)
        with open(path, "wb") as f: f.write(base64.b64decode(shot["data"]))

    def requests(self): return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self):
        return [e["params"] for e in self.events if e["method"] == "Runtime.exceptionThrown" or (e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error")]

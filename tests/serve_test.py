#!/usr/bin/env python3
"""`dilemma serve` on the real model: the API's answers agree with each other, errors have their form, a client that leaves
frees its slot, and the program ends in order."""
import http.client, json, os, signal, socket, subprocess, sys, threading, time

model = os.environ.get("DILEMMA_TEST_MODEL", "")
if not os.path.exists(model):
    print("SKIPPED: no test model (make model)"); sys.exit(77)
dilemma = os.environ["DILEMMA"]
fails = []

def check(what, good, *detail):
    print(("ok      " if good else "FAILED  ") + what, *([] if good else detail), flush=True)
    if not good: fails.append(what)

server = subprocess.Popen([dilemma, "serve", "--model", model, "--port", "0", "-t", "1", "--slots", "4", "-c", "1024", "--name", "smol"],
                          stdout=subprocess.PIPE, text=True)
port = int(server.stdout.readline().rsplit(":", 1)[1].split("/")[0])

def request(method, path, body=None, headers={}):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    c.request(method, path, json.dumps(body) if body is not None else None, headers)
    r = c.getresponse(); text = r.read().decode("utf-8"); c.close()
    return r.status, json.loads(text) if r.getheader("Content-Type").startswith("application/json") else text

def chat(text, **more):
    return request("POST", "/v1/chat/completions", {"model": "smol", "messages": [{"role": "user", "content": text}], "max_tokens": 24, "temperature": 0, **more})

def stream(path, body):
    s, text = request("POST", path, {**body, "stream": True})
    events = [e[6:] for e in text.split("\n\n") if e.startswith("data: ")]
    return s, [json.loads(e) for e in events if e != "[DONE]"], events[-1] == "[DONE]"

def active():
    text = request("GET", "/metrics")[1]
    return int(float([l.split()[1] for l in text.splitlines() if l.startswith("dilemma_requests_active ")][0]))

try:
    check("health", request("GET", "/health")[0] == 200)
    check("models", request("GET", "/v1/models")[1]["data"][0]["id"] == "smol")
    s, a = chat("Name three colours.")
    whole = a["choices"][0]["message"]["content"]
    check("an answer", s == 200 and len(whole) > 0 and a["usage"]["completion_tokens"] <= 24, a)
    s, ev, done = stream("/v1/chat/completions", {"messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 24, "temperature": 0,
                                                  "stream_options": {"include_usage": True}})
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in ev if e["choices"])
    check("streamed text equals the whole", s == 200 and done and text == whole, text, whole)
    check("usage at the end of the stream", ev[-1]["usage"] == a["usage"], ev[-1])
    check("one finish reason", [e["choices"][0]["finish_reason"] for e in ev if e["choices"] and e["choices"][0]["finish_reason"]] == [a["choices"][0]["finish_reason"]])
    word = whole.split()[1] if len(whole.split()) > 1 else whole[1:]
    for cut in (word, word[1:], whole[3:9]):
        s, b = chat("Name three colours.", stop=[cut])
        check(f"stop at {cut!r}", b["choices"][0]["message"]["content"] == whole[:whole.index(cut)] and b["choices"][0]["finish_reason"] == "stop", b)
    one = chat("Tell me a story.", temperature=1, seed=7)[1]["choices"][0]["message"]["content"]
    two = chat("Tell me a story.", temperature=1, seed=7)[1]["choices"][0]["message"]["content"]
    other = chat("Tell me a story.", temperature=1, seed=8)[1]["choices"][0]["message"]["content"]
    check("the same seed, the same text", one == two, one, two)
    check("another seed, another text", one != other)
    prompt = "日本語 emoji 😀🎉 Ελληνικά 日本語 emoji 😀🎉 Ελληνικά 日本語 emoji 😀"
    s, b = request("POST", "/v1/completions", {"prompt": prompt, "max_tokens": 48, "temperature": 0})
    s, ev, done = stream("/v1/completions", {"prompt": prompt, "max_tokens": 48, "temperature": 0})
    pieces = [e["choices"][0]["text"] for e in ev]
    check("whole characters in a stream", "".join(pieces) == b["choices"][0]["text"] and not any("\ufffd" in p for p in pieces), pieces)
    s, b = request("POST", "/v1/completions", {"prompt": [504, 2365, 282], "max_tokens": 1})
    check("token ids as a prompt", s == 200 and b["usage"]["prompt_tokens"] == 3, b)

    for what, status, path, body in [
        ("no JSON", 400, "/v1/chat/completions", "x"), ("another model", 404, "/v1/completions", {"model": "gpt-4", "prompt": "a"}),
        ("a prompt beyond the context", 400, "/v1/completions", {"prompt": "word " * 3000}),
        ("a token beyond the vocabulary", 400, "/v1/completions", {"prompt": [1 << 30]}),
        ("too many answers", 400, "/v1/completions", {"prompt": "a", "n": 17}), ("no endpoint", 404, "/v1/other", {})]:
        s, b = request("POST", path, body)
        check(f"{what}: {status}", s == status and {"message", "type", "param", "code"} == set(b["error"]), s, b)

    # Many at once: all come, and the texts are whole.
    results = [None] * 12
    def ask(i): results[i] = chat(f"Count to {i}.", max_tokens=16)
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    [t.start() for t in threads]; [t.join() for t in threads]
    check("twelve at once", all(r and r[0] == 200 for r in results), results)

    # A client that leaves, before and while it reads, frees its slot.
    for streaming in (False, True):
        s = socket.create_connection(("127.0.0.1", port))
        body = json.dumps({"messages": [{"role": "user", "content": "Write a very long story."}], "max_tokens": 900, "stream": streaming, "temperature": 1}).encode()
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        if streaming: s.recv(4096)
        end = time.time() + 20
        running = 0
        while running == 0 and time.time() < end: running = active()
        check("it runs", running == 1)
        s.close()
        while active() > 0 and time.time() < end: time.sleep(0.01)
        check("a client that leaves frees its slot" + (" (streaming)" if streaming else ""), active() == 0)

    busy = subprocess.run([dilemma, "serve", "--model", model, "--port", str(port)], capture_output=True, text=True, timeout=60)
    check("a port in use: exit 13 and its number", busy.returncode == 13 and str(port) in busy.stderr, busy)
    none = subprocess.run([dilemma, "serve", "--model", model + ".none", "--port", "0"], capture_output=True, text=True, timeout=60)
    check("no such model: exit 5", none.returncode == 5 and ".none" in none.stderr, none)

    # Ends in order, also with a request under way.
    last = []
    t = threading.Thread(target=lambda: last.append(chat("Write a very long story.", max_tokens=900, temperature=1)[0])); t.start()
    while active() == 0: pass
    server.send_signal(signal.SIGTERM)
    check("SIGTERM ends it with status 0", server.wait(timeout=20) == 0)
    t.join()
    check("its clients are told: 503", last == [503], last)
finally:
    if server.poll() is None: server.kill()
    server.wait()
sys.exit(1 if fails else 0)

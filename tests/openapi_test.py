#!/usr/bin/env python3
"""The OpenAPI file against the server: each answer is of its schema, and each member of a request that it names is read (a value of the
wrong kind is refused with the member's name). Over HTTPS, so that this is tried as well."""
import copy, json, os, ssl, subprocess, sys, tempfile, urllib.error, urllib.request
sys.path.insert(0, os.path.dirname(__file__))
from serving import NAME, Serve, check, done, need_model, skip

need_model()
try: from jsonschema import Draft202012Validator
except ImportError: skip("no jsonschema (tools/deps python)")

with tempfile.TemporaryDirectory() as tmp:
    cert, key = os.path.join(tmp, "cert.pem"), os.path.join(tmp, "key.pem")
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                           "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], capture_output=True)
    if made.returncode: skip("no openssl program: no certificate")
    tls = ssl.create_default_context(cafile=cert)
    with Serve("--slots", "2", "--tls-cert", cert, "--tls-key", key) as s:
        def ask(method, path, body=None):
            data = json.dumps(body).encode() if body is not None else None
            try: r = urllib.request.urlopen(urllib.request.Request(s.base + path, data, method=method), timeout=120, context=tls)
            except urllib.error.HTTPError as e: r = e
            return r.status, r.headers.get_content_type(), r.read().decode()

        check("HTTPS", s.base.startswith("https://"), s.base)
        try:
            urllib.request.urlopen(s.base + "/health", timeout=20, context=ssl.create_default_context())
            check("a certificate that nobody trusts", False)
        except urllib.error.URLError as e: check("a certificate that nobody trusts is refused by the client", "certificate" in str(e).lower(), e)
        api = json.loads(ask("GET", "/openapi.json")[2])
        check("it is the file", api == json.load(open(os.path.join(os.environ["DILEMMA_SOURCE"], "web", "openapi.json"))))

        def fits(schema, doc):
            v = Draft202012Validator({**schema, "components": api["components"]})
            return [e.message for e in v.iter_errors(doc)]
        def schema_of(path, method, kind, status="200"): return api["paths"][path][method]["responses"][status]["content"][kind]["schema"]

        base = {"/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "temperature": 0},
                "/v1/completions": {"prompt": "Hi", "max_tokens": 3, "temperature": 0},
                "/api/chat": {"messages": [{"role": "user", "content": "Hi"}], "stream": False, "options": {"num_predict": 3}},
                "/api/generate": {"prompt": "Hi", "stream": False, "options": {"num_predict": 3}}, "/api/show": {"model": NAME}}
        for path, item in api["paths"].items():
            if path in ("/dilemma/whatif", "/dilemma/pair", "/dilemma/find"): continue   # want a plan, or nodes: tests/web_test.py
            for method in item.keys() - {"parameters"}:
                if path.startswith("/dilemma/models") and method != "get": continue   # want an API key: tests/models_test.py
                status, kind, text = ask(method.upper(), path.replace("{model}", NAME), base.get(path))
                ok = status == 200 and kind in item[method]["responses"]["200"]["content"]
                wrong = fits(schema_of(path, method, kind), json.loads(text)) if ok and kind == "application/json" else []
                check(f"{method} {path} answers as described", ok and not wrong, status, kind, wrong, text[:300])
        for path, more in (("/v1/chat/completions", {"logprobs": True, "top_logprobs": 2, "n": 2}), ("/v1/completions", {"logprobs": 2})):
            status, kind, text = ask("POST", path, {**base[path], **more})
            check(f"{path} with {more}", status == 200 and not fits(schema_of(path, "post", kind), json.loads(text)), text[:300])
        for path, kind, cut in (("/v1/chat/completions", "text/event-stream", 6), ("/v1/completions", "text/event-stream", 6), ("/api/chat", "application/x-ndjson", 0),
                                ("/api/generate", "application/x-ndjson", 0)):
            status, got, text = ask("POST", path, {**base[path], "stream": True})
            docs = [json.loads(l[cut:]) for l in text.splitlines() if l and l != "data: [DONE]"]
            check(f"{path} streams as described", got == kind and len(docs) > 2 and not [e for d in docs for e in fits(schema_of(path, "post", kind), d)], got, docs[:2])

        # every member that a request may have is read
        wrong_kind = lambda m: [] if m.get("type") == "object" or "oneOf" in m and not any(o.get("type") == "array" for o in m["oneOf"]) else {}
        for path, body in base.items():
            schema = api["components"]["schemas"][api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]]
            check(f"{path}: our request is of its schema", not fits(schema, body), fits(schema, body))
            for name, member in schema["properties"].items():
                bad = {**copy.deepcopy(body), name: 7.5 if member.get("type") in ("boolean", "string", "object", "integer") or "$ref" in member else wrong_kind(member)}
                if name in ("response_format", "format", "logit_bias"): bad[name] = 7.5
                status, kind, text = ask("POST", path, bad)
                e = json.loads(text).get("error")
                check(f"{path}: {name} is read", status in (400, 404) and (name in str(e)), status, text[:200])
                check(f"{path}: {name}: the error is as described", not fits(schema_of(path, "post", "application/json", "default"), json.loads(text)), text)
done()

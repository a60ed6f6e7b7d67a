#!/usr/bin/env python3
"""The `ollama` client against `dilemma serve` on the real model."""
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
from serving import Serve, check, done, need_model, skip, NAME

need_model()
try: import ollama
except ImportError: skip("no ollama client (tools/deps python)")

ASK = [{"role": "user", "content": "Name three colours."}]
COLD = {"temperature": 0, "num_predict": 20}

with Serve("--slots", "2") as s:
    c = ollama.Client(host=s.base)
    m = c.list().models
    check("tags", len(m) == 1 and m[0].model == NAME and m[0].size > 50_000_000 and m[0].details.family == "llama" and m[0].details.parameter_size == "135M", m)
    check("tags: quantization and digest", m[0].details.quantization_level == "Q4_1" and len(m[0].digest) == 64, m)
    check("version", "version" in s.request("GET", "/api/version")[1])
    show = c.show(NAME)
    check("show", show.modelinfo["llama.context_length"] == 8192 and "completion" in show.capabilities, show)

    r = c.chat(model=NAME, messages=ASK, options=COLD)
    whole = r.message.content
    check("chat", r.done and r.message.role == "assistant" and len(whole) > 10 and r.eval_count <= 20 and r.prompt_eval_count > 5 and r.eval_duration > 0, r)
    check("its end has a reason", r.done_reason in ("stop", "length"), r)
    parts = list(c.chat(model=NAME + ":latest", messages=ASK, options=COLD, stream=True))
    check("chat stream", "".join(p.message.content for p in parts) == whole and [p.done for p in parts] == [False] * (len(parts) - 1) + [True], parts)
    check("the stream's end counts", parts[-1].eval_count == r.eval_count and parts[-1].prompt_eval_count == r.prompt_eval_count)
    oa = s.request("POST", "/v1/chat/completions", {"messages": ASK, "temperature": 0, "max_tokens": 20})[1]
    check("both protocols say the same", oa["choices"][0]["message"]["content"] == whole, oa)

    g = c.generate(model=NAME, prompt="Name three colours.", options=COLD)
    check("generate is a conversation of one message", g.response == whole and g.done, g)
    parts = list(c.generate(model=NAME, prompt="Name three colours.", options=COLD, stream=True))
    check("generate stream", "".join(p.response for p in parts) == whole, parts)
    raw = c.generate(model=NAME, prompt="The capital of France is", raw=True, options=COLD)
    text = s.request("POST", "/v1/completions", {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 20})[1]
    check("raw is a plain completion", raw.response == text["choices"][0]["text"], raw, text)
    polite = c.generate(model=NAME, prompt="Name three colours.", system="Answer in French.", options=COLD)
    check("a system text counts", polite.prompt_eval_count != g.prompt_eval_count, polite)
    cut = whole[4:7]
    st = c.chat(model=NAME, messages=ASK, options={**COLD, "stop": [cut]})
    check("stop", st.message.content == whole[:whole.index(cut)] and st.done_reason == "stop", st)
    check("an empty request asks whether the model is there", c.generate(model=NAME, prompt="").done_reason == "load")
    a, b = (c.chat(model=NAME, messages=ASK, options={"temperature": 1, "seed": 3, "num_predict": 8}).message.content for _ in range(2))
    check("seed", a == b, a, b)

    for what, status, call in [("another model", 404, lambda: c.chat(model="other", messages=ASK)),
                               ("tools", 400, lambda: c.chat(model=NAME, messages=ASK, tools=[{"type": "function", "function": {"name": "f"}}])),
                               ("a temperature of 9", 400, lambda: c.chat(model=NAME, messages=ASK, options={"temperature": 9})),
                               ("pictures", 400, lambda: c.chat(model=NAME, messages=[{"role": "user", "content": "What is this?", "images": [b"png"]}]))]:
        try:
            call()
            check(what, False)
        except ollama.ResponseError as e: check(f"{what}: {status}", e.status_code == status and e.error, e.status_code, e.error)

    it = c.chat(model=NAME, messages=[{"role": "user", "content": "Write a very long story."}], options={"temperature": 1, "seed": 1}, stream=True)
    next(it)
    check("it runs", s.wait_metric("requests_active", lambda v: v == 1))
    it.close()
    check("closing the stream cancels it", s.wait_metric("requests_active", lambda v: v == 0, 20))
done()

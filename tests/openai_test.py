#!/usr/bin/env python3
"""The official `openai` client against `dilemma serve` on the real model: it parses what we send into its own types, and what
it reads in them is right."""
import math, sys, threading
sys.path.insert(0, __import__("os").path.dirname(__file__))
from serving import Serve, check, done, need_model, skip, NAME

need_model()
try: import openai
except ImportError: skip("no openai client (tools/deps python)")

ASK = [{"role": "user", "content": "Name three colours."}]

with Serve("--slots", "4") as s:
    client = openai.OpenAI(base_url=s.base + "/v1", api_key="none", max_retries=0)
    chat, text = client.chat.completions, client.completions

    # models
    check("models.list", [m.id for m in client.models.list()] == [NAME])
    check("models.retrieve", client.models.retrieve(NAME).owned_by == "dilemma")
    try: client.models.retrieve("gpt-4"); check("an unknown model", False)
    except openai.NotFoundError as e: check("an unknown model: NotFoundError", e.code == "model_not_found" and e.param == "model", e)

    # chat, whole and streamed
    a = chat.create(model=NAME, messages=ASK, max_tokens=24, temperature=0)
    whole = a.choices[0].message.content
    check("chat", a.object == "chat.completion" and a.choices[0].message.role == "assistant" and len(whole) > 10 and a.id.startswith("chatcmpl-"), a)
    check("chat usage", a.usage.total_tokens == a.usage.prompt_tokens + a.usage.completion_tokens and 0 < a.usage.completion_tokens <= 24, a.usage)
    check("a request id", (a._request_id or "").startswith("req-"), a._request_id)
    got, usage, finish, roles = "", None, [], []
    for c in chat.create(model=NAME, messages=ASK, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}):
        if c.usage: usage = c.usage
        for k in c.choices:
            got += k.delta.content or ""
            roles += [k.delta.role] if k.delta.role else []
            finish += [k.finish_reason] if k.finish_reason else []
    check("chat stream: text", got == whole, got, whole)
    check("chat stream: usage, role and finish once", usage == a.usage and finish == [a.choices[0].finish_reason] and roles == ["assistant"], usage, finish, roles)
    no_usage = [c.usage for c in chat.create(model=NAME, messages=ASK, max_tokens=4, temperature=0, stream=True)]
    check("chat stream: no usage unless asked", no_usage and not any(no_usage))

    # completions
    b = text.create(model=NAME, prompt="The capital of France is", max_tokens=8, temperature=0)
    check("completion", b.object == "text_completion" and b.choices[0].text and b.choices[0].finish_reason == "length" and b.usage.completion_tokens == 8, b)
    pieces = [c.choices[0].text for c in text.create(model=NAME, prompt="The capital of France is", max_tokens=8, temperature=0, stream=True)]
    check("completion stream", "".join(pieces) == b.choices[0].text and len(pieces) > 2, pieces)

    # logprobs: the tokens spell the text, greedy is the best alternative, the alternatives are ordered, a token's is among them
    l = chat.create(model=NAME, messages=ASK, max_tokens=12, temperature=0, logprobs=True, top_logprobs=5)
    toks = l.choices[0].logprobs.content
    check("logprobs: tokens spell the text", b"".join(bytes(t.bytes) for t in toks).decode() == l.choices[0].message.content, toks)
    check("logprobs: five alternatives, best first", all(len(t.top_logprobs) == 5 and [x.logprob for x in t.top_logprobs] == sorted((x.logprob for x in t.top_logprobs), reverse=True) for t in toks))
    check("logprobs: greedy takes the best", all(t.top_logprobs[0].bytes == t.bytes and abs(t.top_logprobs[0].logprob - t.logprob) < 1e-5 for t in toks))
    check("logprobs: probabilities", all(sum(math.exp(x.logprob) for x in t.top_logprobs) <= 1.0001 and t.logprob <= 0 for t in toks))
    stream = [k for c in chat.create(model=NAME, messages=ASK, max_tokens=12, temperature=0, logprobs=True, top_logprobs=5, stream=True) for k in c.choices]
    streamed = [t for k in stream if k.logprobs for t in k.logprobs.content]
    check("logprobs in a stream: the same tokens", [t.bytes for t in streamed] == [t.bytes for t in toks], streamed)
    check("logprobs in a stream: beside their text", all(b"".join(bytes(t.bytes) for t in k.logprobs.content).decode() == k.delta.content for k in stream if k.logprobs and k.delta.content))
    p = text.create(model=NAME, prompt="The capital of France is", max_tokens=6, temperature=0, logprobs=3).choices[0]
    check("logprobs of a completion", "".join(p.logprobs.tokens) == p.text and len(p.logprobs.token_logprobs) == 6 and all(len(t) == 3 for t in p.logprobs.top_logprobs), p)
    check("text_offset", all(p.text[o:].startswith(t) for o, t in zip(p.logprobs.text_offset, p.logprobs.tokens)), p.logprobs)
    check("no logprobs unless asked", a.choices[0].logprobs is None and b.choices[0].logprobs is None)

    # n and seed
    n = chat.create(model=NAME, messages=ASK, max_tokens=12, temperature=1, n=3, seed=11)
    check("n=3", [k.index for k in n.choices] == [0, 1, 2] and len({k.message.content for k in n.choices}) > 1 and n.usage.completion_tokens <= 36, n)
    parts = {0: "", 1: "", 2: ""}
    ends = []
    for c in chat.create(model=NAME, messages=ASK, max_tokens=12, temperature=1, n=3, seed=11, stream=True):
        for k in c.choices:
            parts[k.index] += k.delta.content or ""
            ends += [k.index] if k.finish_reason else []
    check("n=3 in a stream: each ends once", sorted(ends) == [0, 1, 2] and all(parts.values()), ends, parts)
    one = chat.create(model=NAME, messages=ASK, max_tokens=12, temperature=1, seed=5).choices[0].message.content
    check("seed: the same again", one == chat.create(model=NAME, messages=ASK, max_tokens=12, temperature=1, seed=5).choices[0].message.content)
    check("seed: another, another", len({one} | {chat.create(model=NAME, messages=ASK, max_tokens=12, temperature=1, seed=i).choices[0].message.content for i in (6, 7, 8)}) > 1)

    # stop
    cut = whole[4:7]
    st = chat.create(model=NAME, messages=ASK, max_tokens=24, temperature=0, stop=[cut, "\u2603"], logprobs=True)
    check("stop", st.choices[0].message.content == whole[:whole.index(cut)] and st.choices[0].finish_reason == "stop", st)
    check("stop: no probabilities of what was cut", len(b"".join(bytes(t.bytes) for t in st.choices[0].logprobs.content)) < len(whole.encode()), st)

    # logit_bias: a forced token, and one that is forbidden
    forced = text.create(model=NAME, prompt="Once", max_tokens=4, temperature=0, logprobs=0, logit_bias={"504": 100}).choices[0]
    check("logit_bias 100 forces a token", len(set(forced.logprobs.tokens)) == 1, forced)

    # answers in JSON of a schema, sampled hot: valid whatever is drawn
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
              "required": ["name", "age", "tags"], "additionalProperties": False}
    import json
    for seed in (1, 2):
        j = chat.create(model=NAME, messages=[{"role": "user", "content": "Invent a person, as JSON."}], max_tokens=160, temperature=1, seed=seed,
                        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}).choices[0]
        try: v = json.loads(j.message.content) if j.finish_reason == "stop" else None
        except ValueError: v = "no JSON"
        check(f"json_schema, seed {seed}", v is None or (isinstance(v, dict) and set(v) == {"name", "age", "tags"} and type(v["age"]) is int and set(v["tags"]) <= {"a", "b"}), j)

    # errors in the client's classes
    for what, kind, call in [
        ("a temperature of 9", openai.BadRequestError, lambda: chat.create(model=NAME, messages=ASK, temperature=9)),
        ("tools", openai.BadRequestError, lambda: chat.create(model=NAME, messages=ASK, tools=[{"type": "function", "function": {"name": "f"}}])),
        ("n=99", openai.BadRequestError, lambda: chat.create(model=NAME, messages=ASK, n=99)),
        ("another model", openai.NotFoundError, lambda: chat.create(model="gpt-4", messages=ASK)),
        ("a prompt beyond the context", openai.BadRequestError, lambda: text.create(model=NAME, prompt="word " * 3000)),
        ("embeddings", openai.NotFoundError, lambda: client.embeddings.create(model=NAME, input="x"))]:
        try:
            call()
            check(what, False)
        except kind as e: check(f"{what}: {kind.__name__}", bool(e.body["message"]) and "code" in e.body, e)

    # closing the connection cancels
    it = chat.create(model=NAME, messages=[{"role": "user", "content": "Write a very long story."}], max_tokens=900, temperature=1, seed=1, n=2, stream=True)
    next(iter(it)), next(iter(it))
    check("both answers run", s.wait_metric("requests_active", lambda v: v == 2))
    it.close()
    check("closing the stream cancels both", s.wait_metric("requests_active", lambda v: v == 0, 20))

    # the asynchronous client, several at once
    import asyncio
    async def many():
        ac = openai.AsyncOpenAI(base_url=s.base + "/v1", api_key="none", max_retries=0)
        return await asyncio.gather(*[ac.chat.completions.create(model=NAME, messages=ASK, max_tokens=8, temperature=0) for _ in range(6)])
    check("six at once, asynchronously", all(r.choices[0].message.content for r in asyncio.run(many())))

with Serve("--slots", "1", env={"DILEMMA_API_KEY": "sesame"}) as s:
    try:
        openai.OpenAI(base_url=s.base + "/v1", api_key="wrong", max_retries=0).models.list()
        check("a wrong key", False)
    except openai.AuthenticationError as e: check("a wrong key: AuthenticationError", e.code == "invalid_api_key", e)
    check("the right key", [m.id for m in openai.OpenAI(base_url=s.base + "/v1", api_key="sesame").models.list()] == [NAME])
done()

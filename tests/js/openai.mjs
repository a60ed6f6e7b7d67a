// The official JavaScript client against a server: node openai.mjs BASE_URL MODEL_NAME FOLDER_WITH_NODE_MODULES. Prints a line a fact; exit 1 where one does not hold.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, name, modules] = process.argv.slice(2);
const { default: OpenAI } = await import(pathToFileURL(createRequire(modules + "/package.json").resolve("openai")));
const client = new OpenAI({ baseURL: base + "/v1", apiKey: "none", maxRetries: 0 });
const chat = (more) => client.chat.completions.create({ model: name, messages: [{ role: "user", content: "Name three colours." }], max_tokens: 16, temperature: 0, ...more });
const text = (more) => client.completions.create({ model: name, prompt: "The capital of France is", max_tokens: 6, temperature: 0, ...more });

let failed = 0;
function check(what, good, ...detail) {
  console.log((good ? "ok      " : "FAILED  ") + what, ...(good ? [] : detail.map((d) => JSON.stringify(d))));
  if (!good) failed = 1;
}
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
async function all(stream) {
  const out = [];
  for await (const chunk of stream) out.push(chunk);
  return out;
}

// models
check("models.list", same((await client.models.list()).data.map((m) => m.id), [name]));
check("models.retrieve", (await client.models.retrieve(name)).owned_by === "dilemma");

// chat, whole and streamed
const whole = await chat();
const said = whole.choices[0].message.content;
check("chat", whole.object === "chat.completion" && whole.choices[0].message.role === "assistant" && said.length > 5 && whole.id.startsWith("chatcmpl-"), whole);
check("usage", whole.usage.total_tokens === whole.usage.prompt_tokens + whole.usage.completion_tokens && whole.usage.completion_tokens <= 16, whole.usage);
check("a request id", (whole._request_id ?? "").startsWith("req-"), whole._request_id);
const chunks = await all(await chat({ stream: true, stream_options: { include_usage: true } }));
const parts = chunks.flatMap((c) => c.choices);
check("chat stream: text", parts.map((k) => k.delta.content ?? "").join("") === said, parts);
check("chat stream: usage and finish once", same(chunks.filter((c) => c.usage).map((c) => c.usage), [whole.usage]) &&
  same(parts.filter((k) => k.finish_reason).map((k) => k.finish_reason), [whole.choices[0].finish_reason]), chunks);
const runner = client.chat.completions.stream({ model: name, messages: [{ role: "user", content: "Name three colours." }], max_tokens: 16, temperature: 0 });
check("the client's own gathering of a stream", (await runner.finalChatCompletion()).choices[0].message.content === said);

// completions
const whole_text = await text();
check("completion", whole_text.object === "text_completion" && whole_text.choices[0].finish_reason === "length" && whole_text.usage.completion_tokens === 6, whole_text);
const streamed = await all(await text({ stream: true }));
check("completion stream", streamed.map((c) => c.choices[0].text).join("") === whole_text.choices[0].text && streamed.length > 2, streamed);

// logprobs
const l = (await chat({ max_tokens: 8, logprobs: true, top_logprobs: 3 })).choices[0];
check("logprobs: the tokens spell the text", Buffer.from(l.logprobs.content.flatMap((t) => t.bytes)).toString() === l.message.content, l);
check("logprobs: three alternatives, greedy is the best", l.logprobs.content.every((t) => t.top_logprobs.length === 3 && t.logprob <= 0 && Math.abs(t.top_logprobs[0].logprob - t.logprob) < 1e-5), l);
const p = (await text({ logprobs: 2 })).choices[0];
check("logprobs of a completion", p.logprobs.tokens.join("") === p.text && p.logprobs.top_logprobs.every((t) => Object.keys(t).length === 2), p);

// n, seed, stop
const three = await chat({ n: 3, seed: 11, temperature: 1, max_tokens: 8 });
check("n", same(three.choices.map((k) => k.index), [0, 1, 2]) && new Set(three.choices.map((k) => k.message.content)).size > 1, three);
const drawn = async (seed) => (await chat({ seed, temperature: 1, max_tokens: 12 })).choices[0].message.content;
const five = await drawn(5);
check("seed: the same again, another for another", five === (await drawn(5)) && (five !== (await drawn(6)) || five !== (await drawn(7))));
const cut = said.slice(3, 6);
const st = (await chat({ stop: [cut, "\u2603"] })).choices[0];
check("stop", st.message.content === said.slice(0, said.indexOf(cut)) && st.finish_reason === "stop", st);

// an answer of a schema, drawn hot
const schema = { type: "object", properties: { name: { type: "string", maxLength: 8 }, age: { type: "integer" } }, required: ["name", "age"], additionalProperties: false };
const j = (await chat({ max_tokens: 80, temperature: 1, seed: 3, response_format: { type: "json_schema", json_schema: { name: "person", schema, strict: true } } })).choices[0];
const value = j.finish_reason === "stop" ? JSON.parse(j.message.content) : null;
check("response_format json_schema", value === null || (same(Object.keys(value).sort(), ["age", "name"]) && Number.isInteger(value.age)), j);

// errors in the client's classes
for (const [what, kind, status, call] of [
  ["a temperature of 9", OpenAI.BadRequestError, 400, () => chat({ temperature: 9 })],
  ["tools", OpenAI.BadRequestError, 400, () => chat({ tools: [{ type: "function", function: { name: "f" } }] })],
  ["another model", OpenAI.NotFoundError, 404, () => chat({ model: "gpt-4" })],
  ["a prompt beyond the context", OpenAI.BadRequestError, 400, () => text({ prompt: "word ".repeat(3000) })],
]) {
  try {
    await call();
    check(what, false);
  } catch (e) {
    check(`${what}: ${kind.name}`, e instanceof kind && e.status === status && e.error?.message && "code" in e.error, String(e));
  }
}

// closing the connection cancels: by the stream, and by a signal
const active = async () => Number(/^dilemma_requests_active (\d+)/m.exec(await (await fetch(base + "/metrics")).text())?.[1]);
async function until(wanted, sec = 20) {
  for (const end = Date.now() + 1000 * sec; Date.now() < end; ) if ((await active()) === wanted) return true;
  return false;
}
const long = { messages: [{ role: "user", content: "Write a very long story." }], max_tokens: 900, temperature: 1, seed: 1, n: 2, stream: true };
const story = await chat(long);
for await (const chunk of story) if (chunk.choices.length && (await active()) === 2) break;
story.controller.abort();
check("leaving a stream cancels both answers", await until(0));
const signal = new AbortController();
const pending = client.chat.completions.create({ model: name, ...long, stream: false }, { signal: signal.signal });
check("an answer as a whole is under way", await until(2));
signal.abort();
try {
  await pending;
  check("aborted", false);
} catch (e) {
  check("aborted: APIUserAbortError", e instanceof OpenAI.APIUserAbortError, String(e));
}
check("and it is cancelled", await until(0));
process.exit(failed);

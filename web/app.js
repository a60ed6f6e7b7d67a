"use strict";
const $ = id => document.getElementById(id);
const NS = "http://www.w3.org/2000/svg";
let key = sessionStorage.getItem("key") || "", state = null, last = null, rates = [], talk = [], abort = null;

/* Text from the server is only ever set as text: nothing of it becomes markup. */
function el(name, attrs = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}
function svg(name, attrs = {}, ...children) {
  const e = document.createElementNS(NS, name);
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}
const ms = s => s > 0 ? (s * 1e3).toPrecision(3) + " ms" : "–";
const pct = x => (100 * x).toFixed(2) + " %";
function bytes(b) {
  for (const [u, n] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (b >= n) return (b / n).toPrecision(3) + " " + u;
  return b + " B";
}
const mbit = b => (b * 8 >= 1e9 ? (b * 8e-9).toPrecision(3) + " Gbit/s" : (b * 8e-6).toPrecision(3) + " Mbit/s");

async function ask(path, options = {}) {
  const headers = key ? { Authorization: "Bearer " + key } : {};
  const r = await fetch(path, { ...options, headers: { ...headers, ...(options.body ? { "Content-Type": "application/json" } : {}) } });
  if (r.status === 401) { $("keyform").hidden = false; throw new Error("a key is asked for"); }
  return r;
}

/* Colour by bits a weight: few are red, many are green; equal in lightness, so that the numbers stay readable. */
function colour(bits) {
  const t = Math.max(0, Math.min(1, (bits - 2) / 8));
  return `hsl(${Math.round(10 + 150 * t)} 55% ${matchMedia("(prefers-color-scheme: dark)").matches ? 38 : 72}%)`;
}

function table(heads, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map(h => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...rows.map(r => el("tr", {}, ...r.map(c => el("td", {}, String(c)))))));
}

function drawNet(c) {
  if (!c) return $("net").replaceChildren(el("p", {}, "One machine: the model runs in this process."));
  const n = c.nodes.length, W = 420, H = 300, at = i => [W / 2 + 130 * Math.cos(2 * Math.PI * i / n - Math.PI / 2), H / 2 + 100 * Math.sin(2 * Math.PI * i / n - Math.PI / 2)];
  const s = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${n} machines and their links; the table below has the figures` });
  const used = {};
  for (const g of state.plan ? state.plan.stages : []) used[g.node] = (used[g.node] || 0) + g.bytes;
  for (const l of c.links) {
    if (l.from > l.to && c.links.some(k => k.from === l.to && k.to === l.from)) continue;
    const [x1, y1] = at(l.from), [x2, y2] = at(l.to);
    s.append(svg("line", { x1, y1, x2, y2, class: "edge", "stroke-width": Math.max(1, Math.min(5, Math.log10(l.bytes_per_sec) - 4)) }));
    if (n <= 8) {
      s.append(svg("text", { x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 2, "text-anchor": "middle", class: "soft" }, ms(l.rtt_sec)));
      s.append(svg("text", { x: (x1 + x2) / 2, y: (y1 + y2) / 2 + 10, "text-anchor": "middle", class: "soft" }, mbit(l.bytes_per_sec)));
    }
  }
  c.nodes.forEach((v, i) => {
    const [x, y] = at(i), share = v.memory_bytes ? Math.min(1, (used[v.name] || 0) / v.memory_bytes) : 0;
    s.append(svg("circle", { cx: x, cy: y, r: 26, fill: used[v.name] ? "var(--accent)" : "var(--line)", opacity: .25 }));
    s.append(svg("text", { x, y: y + 1, "text-anchor": "middle" }, v.name + (i === c.entry ? " ◂" : "")));
    s.append(svg("text", { x, y: y + 13, "text-anchor": "middle", class: "soft" }, pct(share)));
  });
  $("net").replaceChildren(s, el("p", {}, "In a circle: how much of the machine's memory the weights take. ◂ is where requests arrive."));
  $("nettable").replaceChildren(
    table(["machine", "address", "memory", "weights", "threads", "CPU"], c.nodes.map(v => [v.name, v.address, bytes(v.memory_bytes), bytes(used[v.name] || 0), v.threads, v.cpu])),
    table(["from", "to", "there and back", "speed"], c.links.map(l => [c.nodes[l.from].name, c.nodes[l.to].name, ms(l.rtt_sec), mbit(l.bytes_per_sec)])));
}

function planSvg(p) {
  const nodes = [...new Set(p.layers.map(l => l.node))], w = 24, h = 26, left = 92, W = left + w * p.layers.length + 4, H = 18 + h * nodes.length;
  const s = svg("svg", { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${p.layers.length} layers on ${nodes.length} machines; the table below has the figures` });
  s.style.maxWidth = "none";
  nodes.forEach((n, r) => s.append(svg("text", { x: 0, y: 18 + r * h + 17 }, n.length > 13 ? n.slice(0, 12) + "…" : n)));
  p.layers.forEach((l, i) => {
    const y = 18 + nodes.indexOf(l.node) * h, x = left + i * w;
    if (i % 4 === 0) s.append(svg("text", { x: x + w / 2, y: 12, "text-anchor": "middle", class: "soft" }, String(i)));
    s.append(svg("rect", { x: x + 1, y: y + 1, width: w - 2, height: h - 2, rx: 3, fill: colour(l.bits) }, svg("title", {}, `${l.name} on ${l.node}: ${l.level}, ${l.bits.toFixed(2)} bits, ${bytes(l.bytes)}`)));
    s.append(svg("text", { x: x + w / 2, y: y + 17, "text-anchor": "middle" }, l.bits >= 10 ? l.bits.toFixed(0) : l.bits.toFixed(1)));
  });
  return s;
}
const planLine = p => `${ms(p.token_sec)} a token, ${ms(p.prefill_sec)} for a prompt of ${p.tokens_in}; ${pct(p.ratio_to_fp32)} of fp32, damage ${p.predicted_damage.toPrecision(3)} (${p.damage_measure}); at most ${pct(p.gap)} slower than the best there is`;

function drawPlan(p) {
  if (!p) {
    $("planline").textContent = "No plan: the whole model is on this machine. dilemma up makes one over several.";
    return;
  }
  $("planline").textContent = planLine(p);
  $("plan").replaceChildren(planSvg(p));
  $("legend").replaceChildren(...[2, 3, 4, 5, 6, 8].map(b => { const i = el("i"); i.style.background = colour(b); return el("span", {}, i, b + " bits a weight"); }));
  $("plantable").replaceChildren(table(["machine", "layers", "weights", "compute", "hop"], p.stages.map(g => [g.node, g.first_layer + "–" + g.last_layer, bytes(g.bytes), ms(g.compute_sec), ms(g.hop_sec)])),
    table(["layer", "machine", "level", "bits", "size"], p.layers.map(l => [l.name, l.node, l.level, l.bits.toFixed(2), bytes(l.bytes)])));
}

function drawNow(s) {
  const now = performance.now() / 1e3, m = s.metrics;
  if (last && now > last.at) rates.push(Math.max(0, (m.generated_tokens - last.tokens) / (now - last.at)));
  rates = rates.slice(-120);
  last = { at: now, tokens: m.generated_tokens };
  $("f-rate").textContent = rates.length ? rates[rates.length - 1].toFixed(1) : "–";
  $("f-queue").textContent = `${m.active} / ${m.queued}`;
  $("f-measured").textContent = ms(m.token_sec);
  $("f-predicted").textContent = s.plan ? ms(s.plan.token_sec) : "–";
  const top = Math.max(1, ...rates);
  $("spark").replaceChildren(svg("path", { d: rates.map((r, i) => `${i ? "L" : "M"}${(i * 2).toFixed(1)} ${(38 - 36 * r / top).toFixed(1)}`).join("") || "M0 38" }));
  $("status").textContent = s.ready ? "ready" : s.why;
  $("status").className = s.ready ? "" : "bad";
}

/* What runs is the plan's, unless a machine was lost or a move paid. */
function drawRunning(s) {
  const planned = {};
  for (const g of s.plan ? s.plan.stages : []) planned[g.node] = [...(planned[g.node] || []), `${g.first_layer}-${g.last_layer}`];
  const same = s.nodes.length === Object.keys(planned).length && s.nodes.every(n => n.layers === (planned[n.name] || []).join(", "));
  $("running").textContent = s.plan && s.nodes.length && !same ? "Running at the moment: " + s.nodes.map(n => `${n.name} ${n.layers} (${n.state})`).join("; ") : "";
}

async function look() {
  try {
    const s = await (await ask("dilemma/state")).json();
    const first = !state || state.version !== s.version;
    state = s;
    drawNow(s);
    drawRunning(s);
    if (first) {
      $("model").textContent = s.model;
      drawNet(s.cluster);
      drawPlan(s.plan);
      $("what").hidden = !s.can_replan;
      $("whatnote").textContent = s.can_replan ? "Planned anew on the server from the same measurements; what runs stays as it is." : "Needs the plan's measurements: dilemma serve --profile profile.json.";
      if (s.can_replan) setUpWhat(s);
      setUpEnrol(s);
    }
  } catch (e) {
    $("status").textContent = String(e.message || e);
    $("status").className = "bad";
  }
  setTimeout(look, 1000);
}

/* --- what if ------------------------------------------------------------------------------------------------------------ */

function showSliders() {
  $("o-ratio").textContent = $("ratio").value + " %";
  $("o-context").textContent = String(2 ** $("context").value);
}

function setUpWhat(s) {
  $("ratio").value = Math.max(5, Math.min(60, 100 * s.plan.ratio_to_fp32 * 1.001));
  $("context").value = Math.round(Math.log2(s.plan.context || 2048));
  $("without").replaceChildren(el("legend", {}, "without"), ...s.cluster.nodes.filter((_, i) => i !== s.cluster.entry).map(n => {
    const box = el("input", { type: "checkbox", value: n.name });
    return el("label", {}, box, " " + n.name);
  }));
  showSliders();
}

function drawFront(points, now) {
  if (!points.length) return $("front").replaceChildren();
  const W = 420, H = 220, xs = points.map(p => p.damage), ys = points.map(p => p.token_sec), pad = 64;
  const x0 = Math.min(...xs), x1 = Math.max(...xs) || 1, y0 = Math.min(...ys), y1 = Math.max(...ys);
  const X = v => pad + (W - pad - 12) * (x1 > x0 ? (v - x0) / (x1 - x0) : .5), Y = v => H - 30 - (H - 50) * (y1 > y0 ? (v - y0) / (y1 - y0) : .5);
  const s = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Pareto front: milliseconds a token against damage" });
  s.append(svg("path", { d: points.map((p, i) => `${i ? "L" : "M"}${X(p.damage).toFixed(1)} ${Y(p.token_sec).toFixed(1)}`).join(""), fill: "none", stroke: "var(--soft)" }));
  for (const p of points) s.append(svg("circle", { cx: X(p.damage), cy: Y(p.token_sec), r: 5, fill: "var(--accent)" }, svg("title", {}, `${ms(p.token_sec)} a token, damage ${p.damage.toPrecision(3)}, ${pct(p.ratio_to_fp32)} of fp32`)));
  s.append(svg("text", { x: pad, y: H - 8, class: "soft" }, x0.toPrecision(2)), svg("text", { x: W - 12, y: H - 8, "text-anchor": "end", class: "soft" }, "damage " + x1.toPrecision(2)));
  s.append(svg("text", { x: 0, y: Y(y0), class: "soft" }, ms(y0)), svg("text", { x: 0, y: Math.max(12, Y(y1)), class: "soft" }, ms(y1)));
  $("front").replaceChildren(el("h3", {}, "What else could be had"), s, el("div", { class: "scroll" }, table(["a token", "damage", "size"], points.map(p => [ms(p.token_sec), p.damage.toPrecision(3), pct(p.ratio_to_fp32)]))));
}

$("what").addEventListener("input", showSliders);
$("what").addEventListener("submit", async e => {
  e.preventDefault();
  $("go").disabled = true;
  $("whatstate").textContent = "planning…";
  try {
    const without = [...$("without").querySelectorAll("input:checked")].map(b => b.value);
    const r = await ask("dilemma/whatif", { method: "POST", body: JSON.stringify({ max_ratio: $("ratio").value / 100, context: 2 ** $("context").value, without, points: 6 }) });
    const a = await r.json();
    if (!r.ok) throw new Error(a.error.message);
    $("whatline").textContent = a.plan ? planLine(a.plan) : "No plan: " + a.why;
    $("whatplan").replaceChildren(...(a.plan ? [planSvg(a.plan)] : []));
    drawFront(a.front || []);
    $("whatstate").textContent = a.plan ? `${a.plan.token_sec < state.plan.token_sec ? "faster" : "slower"} than what runs: ${ms(a.plan.token_sec)} against ${ms(state.plan.token_sec)}` : "";
  } catch (err) { $("whatstate").textContent = String(err.message || err); }
  $("go").disabled = false;
});

/* --- enrolment ------------------------------------------------------------------------------------------------------------- */

function setUpEnrol(s) {
  $("enrol").hidden = !s.enrol;
  $("addhere").hidden = Boolean(s.enrol);
  $("e-find").hidden = !(s.enrol && s.enrol.find);
  if (s.enrol) drawEnrolled(s.enrol.nodes);
}

function drawEnrolled(nodes) {
  const used = new Set(state.plan ? state.plan.layers.map(l => l.node) : []);
  $("e-list").replaceChildren(...(nodes.length ? [el("h3", {}, "Enrolled"), table(["machine", "address", "now"], nodes.map(n => [n.name, n.address, used.has(n.name) ? "holds layers" : "waits for dilemma up"]))] : []));
}

/* One question to the server; its words on the way, and its error as a text. */
async function enrolAsk(path, body, words) {
  $("e-state").className = "";
  $("e-state").textContent = words;
  for (const b of ["e-go", "e-find"]) $(b).disabled = true;
  try {
    const r = await ask(path, { method: "POST", body: JSON.stringify(body) });
    const a = await r.json();
    if (!r.ok) throw new Error(a.error.message);
    return a;
  } catch (err) {
    $("e-state").className = "bad";
    $("e-state").textContent = String(err.message || err);
    return null;
  } finally { for (const b of ["e-go", "e-find"]) $(b).disabled = false; }
}

$("enrol").addEventListener("submit", async e => {
  e.preventDefault();
  const a = await enrolAsk("dilemma/pair", { address: $("e-address").value.trim(), code: $("e-code").value, name: $("e-name").value.trim() }, "pairing…");
  if (!a) return;
  $("e-state").textContent = `${a.name} is enrolled: each has the other's key.`;
  $("e-code").value = $("e-name").value = "";
  const s = await (await ask("dilemma/state")).json();
  if (s.enrol) drawEnrolled(s.enrol.nodes);
});

$("e-find").addEventListener("click", async () => {
  const a = await enrolAsk("dilemma/find", {}, "looking, 2 s…");
  if (!a) return;
  $("e-state").textContent = a.nodes.length ? `${a.nodes.length} found` : "none found: start them with --announce";
  $("e-found").replaceChildren(...a.nodes.map(n => {
    const b = el("button", { type: "button" }, `${n.name} at ${n.address}` + (n.pairing ? " shows a code" : n.enrolled ? ", enrolled" : ", shows no code"));
    b.disabled = !n.pairing;
    b.addEventListener("click", () => { $("e-address").value = n.address; $("e-code").focus(); });
    return b;
  }));
});

/* --- chat ----------------------------------------------------------------------------------------------------------------- */

function line(who, text) {
  const p = el("p", { class: who }, text);
  $("talk").append(p);
  $("talk").scrollTop = $("talk").scrollHeight;
  return p;
}

async function send(text) {
  talk.push({ role: "user", content: text });
  line("user", text);
  const p = line("assistant", "");
  let answer = "", rest = "";
  abort = new AbortController();
  $("send").disabled = true;
  $("stop").disabled = false;
  try {
    const r = await ask("v1/chat/completions", { method: "POST", body: JSON.stringify({ messages: talk, stream: true }), signal: abort.signal });
    if (!r.ok) throw new Error((await r.json()).error.message);
    const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const l of lines) {
        if (!l.startsWith("data: ") || l === "data: [DONE]") continue;
        const e = JSON.parse(l.slice(6));
        if (e.error) throw new Error(e.error.message);
        if (e.choices[0]) answer += e.choices[0].delta.content || "";
      }
      p.textContent = answer;
      $("talk").scrollTop = $("talk").scrollHeight;
    }
  } catch (e) {
    if (e.name !== "AbortError") line("bad", String(e.message || e));
  }
  if (answer) talk.push({ role: "assistant", content: answer });
  else talk.pop();
  abort = null;
  $("send").disabled = false;
  $("stop").disabled = true;
}

$("say").addEventListener("submit", e => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text || abort) return;
  $("text").value = "";
  send(text);
});
$("text").addEventListener("keydown", e => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  $("say").requestSubmit();
});
$("stop").addEventListener("click", () => abort && abort.abort());
$("clear").addEventListener("click", () => { if (!abort) { talk = []; $("talk").replaceChildren(); } });
$("keyform").addEventListener("submit", e => {
  e.preventDefault();
  key = $("key").value;
  sessionStorage.setItem("key", key);
  $("keyform").hidden = true;
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state && drawPlan(state.plan));
look();

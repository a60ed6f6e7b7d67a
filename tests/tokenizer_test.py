"""Token ids and chat prompts against the reference implementations: Hugging Face `tokenizers`, Jinja2, llama.cpp.

Every text gives the same ids, and the ids give the text back. The C side is the unit test program in its --ids mode. OPT's real
vocabulary and the SQuAD and WikiText texts come from DILEMMA_TEST_DATA, text in twenty scripts and code from scripts.py, SmolLM2's vocabulary from the test model; Llama 3's family
is a vocabulary trained here under its settings. What is absent is skipped, and said.
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import scripts

try:
    from gguf import GGUFReader, GGUFWriter
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
except ImportError as e:
    print(f"SKIPPED: {e} (tools/deps python)")
    sys.exit(77)

PROGRAM = Path(os.environ["DILEMMA"]).parent / "model.tokenizer_test"
DATA = Path(os.environ.get("DILEMMA_TEST_DATA", "/nonexistent"))
MODEL = Path(os.environ.get("DILEMMA_TEST_MODEL", "/nonexistent"))
LLAMA = Path(os.environ.get("DILEMMA_LLAMA_BIN", "/nonexistent"))
TEMPLATES = Path(os.environ.get("DILEMMA_TEMPLATES") or Path(os.environ.get("DILEMMA_DEPS", "/nonexistent")) / "src/llama.cpp/models/templates")
TMP = Path(tempfile.mkdtemp(prefix="dilemma-tok-"))
BOS, SPECIAL = 1, 2
NORMAL, CONTROL, USER = 1, 3, 4
skipped, failures = [], 0


def skip(what):
    skipped.append(what)
    print(f"SKIPPED: {what}")


def fail(what):
    global failures
    failures += 1
    if failures <= 20:
        print(f"FAILED: {what}")


# --- texts ---------------------------------------------------------------------------------------------------------------

PAGE = [
    "", " ", "  ", "\n", "\r\n", "\t\t x", "a", " a", "  a", "a  b", "a \n b", "\n\n\n a", "tail   ", "tail \n \n",
    "It's we're I'm they'll you'd I've don't 's'tS 'S 'Re 'LL'll 'ſ ' s",
    "1 12 123 1234 12345 3.14 1,000,000 ½ ² ① Ⅷ ١٢٣ १२३ 一二三 12ab34 a1b2  7   8",
    "def f(x):\n    if x >= 10:\n\t\treturn {'k': [x**2, \"s\\n\"]}  # note\n\n\nclass A_B(object): pass\r\n",
    "for (int i = 0; i < n; i++) { a[i] += b->c & 0xFF; } /* ok? */ // end\n#include <x.h>",
    "Grüße aus Köln: Straße, naïve café, coöperate, ﬁne, Ångström, smörgåsbord, İstanbul, ǅ",
    "Быстрая лиса прыгает через ленивую собаку. Ёлка, ъ! Το γρήγορο αλεπού — ΑΣΣ ςσ.",
    "敏捷的棕色狐狸跳过懒狗。東京は日本の首都です。カタカナ ひらがな ｶﾀｶﾅ 한국어 문장입니다. 𠮷野家",
    "השועל החום המהיר. الثعلب البني السريع يقفز فوق الكلب الكسول، مرحبا! فارسی: می‌خواهم",
    "तेज़ भूरी लोमड़ी। ภาษาไทยไม่มีช่องว่าง အမြန် დაბალი ქართული Հայերեն ትግርኛ ᏣᎳᎩ བོད་ཡིག",
    "😀😃 👩‍👩‍👧‍👦 🇩🇪🇯🇵 👍🏽 ☃️ ❤️‍🔥 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ♟︎ ⅓ ∑∫≠≤ €£¥ °C ™ © №",
    "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u0085g\u180eh\u200bi\u2060j\ufeffk\u202fl\u205fm\u1680n\x0bo\x0cp\x1cq\x1fr",
    "e\u0301 o\u0308 \u0301alone a\u0301\u0302\u0303b \u200d x\u200cy \ufe0f z\u0338= ",
    "\u0000\u0001\u001f\u007f\u0080\u009f\u00ad control",
    "....!!! ??? --- === ~~~~ ((())) [[]] <<>> $$$ %%% ^&* \\\\ || `` '' \"\" ''''s 's",
    "<|im_start|> <|endoftext|> </s> <s> <pad> <|eot_id|> <|im_end", "x" * 3000, " " * 2000 + "x", "ab" * 1500, "\n" * 900, "9" * 500,
    "https://example.org/a/b?c=d&e=%20f#g me@example.org C:\\Windows\\x.dll /usr/lib ~user --flag=1 v1.2.3-rc4+5",
]


def random_texts(n, seed=20240711):
    print(f"random texts: seed {seed}")
    r = random.Random(seed)
    spaces = " \n\t\r\u00a0\u2003\u3000\u0085\u2028"
    pools = [spaces, "abcXYZ", "0123456789½²", "'s't're've'm'll'd", "éßñ", "日本語한", "абв", "😀👍", "!?.,-_()", "\u0301\u200d\u180e\u200b",
             "<|im_start|>"]
    texts = []
    for _ in range(n):
        t = ""
        for _ in range(r.randrange(40)):
            p = r.choice(pools)
            t += "".join(r.choice(p) for _ in range(r.randrange(1, 4)))
        texts.append(t)
    for _ in range(n // 4):
        texts.append("".join(chr(c) for c in (r.randrange(0x11000) for _ in range(30)) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"))
    return texts


def every_character():
    """Each assigned character between a letter, a digit and white space, doubled and alone."""
    return [f"a{c}a 1{c}1 {c}{c} {c}\n {c}'s" for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]


def data_texts():
    if not DATA.is_dir():
        skip(f"the SQuAD and WikiText texts: {DATA} is not there; the texts written in this test are compared")
        return []
    texts = []
    for name in ("squad-train-subset44.json", "squad-dev-half.json"):
        for article in json.loads((DATA / name).read_text("utf-8"))["data"]:
            for p in article["paragraphs"]:
                texts.append(p["context"])
                texts += [q["question"] for q in p["qas"]]
    wiki = (DATA / "wikitext-2-valid.txt").read_text("utf-8")
    return texts + [wiki] + wiki.splitlines(keepends=True)


# --- the C side -----------------------------------------------------------------------------------------------------------

def run(model, records):
    path = TMP / "records"
    with path.open("wb") as f:
        for flag, text in records:
            raw = text if isinstance(text, bytes) else text.encode("utf-8")
            f.write(struct.pack("<BI", flag, len(raw)) + raw)
    p = subprocess.run([PROGRAM, "--ids", model, path], capture_output=True, text=True, timeout=600)
    return p.returncode, p.stdout.splitlines(), p.stderr.strip()


def compare(name, model, reference, texts, flag=0, bos=None, tie=lambda got, expected: False):
    code, lines, note = run(model, [(flag, t) for t in texts])
    if code != 0 or len(lines) != len(texts):
        return fail(f"{name}: exit {code}, {len(lines)} of {len(texts)} answers: {note}")
    tokens = wrong = lost = 0
    for text, line, want in zip(texts, lines, reference.encode_batch(texts, add_special_tokens=False)):
        if line.startswith("! "):
            lost += 1
            line = line[2:]
        got = [int(x) for x in line.split()]
        expected = ([bos] if bos is not None else []) + want.ids
        tokens += len(expected)
        if got != expected and not tie(got, expected):
            wrong += 1
            i = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
            fail(f"{name}: {text[:60]!r}: token {i}: {got[i:i + 6]}, reference {expected[i:i + 6]}")
    print(f"{name}: {len(texts)} texts, {tokens} tokens, {wrong} texts differ, {lost} without round trip; {note}")
    return lost


def write_gguf(name, pre, tokens, types, merges, template=None, **ids):
    path = TMP / f"{name}.gguf"
    w = GGUFWriter(path, "opt" if name == "opt" else "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    for key, value in ids.items():
        w.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
    if template is not None:
        w.add_chat_template(template)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def byte_level(**kw):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **kw)


# --- families --------------------------------------------------------------------------------------------------------------

def opt(texts):
    if not DATA.is_dir():
        return skip("OPT: its vocabulary is in the data folder")
    vocab = json.loads((DATA / "opt-vocab.json").read_text("utf-8"))
    merges = [tuple(m.split(" ")) for m in (DATA / "opt-merges.txt").read_text("utf-8").splitlines() if m and not m.startswith("#version")]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = [t for t, _ in sorted(vocab.items(), key=lambda kv: kv[1])]
    assert [vocab[t] for t in tokens] == list(range(len(tokens)))
    path = write_gguf("opt", "gpt-2", tokens, [CONTROL if t in special else NORMAL for t in tokens], [" ".join(m) for m in merges], bos=2, eos=2)
    ref = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    ref.pre_tokenizer = byte_level()
    code, lines, _ = run(path, [(BOS, "Hello world")])
    if code or lines != ["2 31414 232 "]:
        fail(f"OPT: Hello world is {lines}")
    if compare("OPT", path, ref, texts, BOS, bos=2):
        fail("OPT: texts without round trip")
    ref.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    compare("OPT, special tokens read", path, ref, PAGE, SPECIAL)


def smollm2(texts):
    if not MODEL.is_file():
        return skip("SmolLM2: the test model is not there (tools/deps model)")
    r = GGUFReader(MODEL)
    tokens, types, merges, template = (r.get_field(f"tokenizer.{k}").contents() for k in ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template"))
    merges = [tuple(m.split(" ")) for m in merges]
    ref = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    ref.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
    # The vocabulary lacks some bytes (control characters, and bytes of rare scripts); both sides leave them out.
    lacking = {b for b, c in byte_alphabet().items() if c not in tokens}
    whole = [t for t in texts if not lacking & set(t.encode("utf-8"))]
    if compare("SmolLM2", MODEL, ref, whole):
        fail("SmolLM2: texts without round trip")
    compare("SmolLM2, bytes that it lacks", MODEL, ref, [t for t in texts if lacking & set(t.encode("utf-8"))])
    llama_tokenize(whole, ref)
    ref.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == CONTROL])
    compare("SmolLM2, special tokens read", MODEL, ref, PAGE, SPECIAL)
    chat("SmolLM2's template", MODEL, template, ref, "chatml")
    for name, text in CHATML_VARIANTS.items():
        path = write_gguf("smollm2", "smollm", tokens, types, [" ".join(m) for m in merges], text, bos=1, eos=2)
        chat(f"chatml, {name}", path, text, ref, "chatml")
    for name, text in (("one letter changed", template.replace("user", "User").replace("assistant", "Assistant")), ("text outside", template + "x"),
                       ("unfinished", template[:-5]), ("a third of it", template[:200])):
        path = write_gguf("smollm2", "smollm", tokens, types, [" ".join(m) for m in merges], text, bos=1, eos=2)
        code, lines, note = run(path, [(ord("N"), ""), (ord("C"), "user\0hi\0")])
        if lines[:1] != ["-"] or code != 4:
            fail(f"a template that is not known ({name}): {lines} {code} {note}")


def byte_alphabet():
    plain = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def llama_tokenize(texts, ref):
    tool = LLAMA / "llama-tokenize"
    if not tool.exists():
        return skip("llama.cpp's own ids: llama-tokenize is not there (tools/deps llama)")
    # One file of them. (Bytes that the vocabulary lacks are out: llama.cpp keeps merges from joining over the gap, the reference does not.)
    text = "\n".join(texts[:3700] + texts[-4000:])
    (TMP / "llama.txt").write_bytes(text.encode("utf-8"))
    p = subprocess.run([tool, "-m", MODEL, "-f", TMP / "llama.txt", "--ids", "--no-bos", "--no-escape", "--no-parse-special", "--log-disable"],
                       capture_output=True, text=True, timeout=300)
    got = json.loads(p.stdout.strip().splitlines()[-1]) if p.returncode == 0 else None
    _, lines, _ = run(MODEL, [(0, text)])
    ours = [int(x) for x in lines[0].removeprefix("! ").split()]
    if got != ours:
        i = next((i for i, (a, b) in enumerate(zip(got or [], ours)) if a != b), -1)
        fail(f"llama-tokenize: token {i}: {(got or [])[i:i + 6]}, ours {ours[i:i + 6]}: {ref.decode(ours[max(i - 5, 0):i + 6])!r} {p.stderr[-200:]}")
    else:
        print(f"llama-tokenize: {len(ours)} tokens, equal")


LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
                r"\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"]


def llama3(texts):
    ref = Tokenizer(models.BPE())
    ref.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"), byte_level(use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=12000, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    ref.train_from_iterator(PAGE * 3 + texts[:20000], trainer)
    state = json.loads(ref.to_str())
    vocab, merges = state["model"]["vocab"], [tuple(m) for m in state["model"]["merges"]]
    # Words that no merge makes: the family takes them whole.
    for word in ("Ġunreachablewhole", "zqzq", "123", "Ġ//--"):
        vocab.setdefault(word, len(vocab))
    ref.model = models.BPE(vocab=vocab, merges=merges, ignore_merges=True)
    tokens = [t for t, _ in sorted(vocab.items(), key=lambda kv: kv[1])]
    n = len(tokens)
    types = [NORMAL] * n + [CONTROL] * len(LLAMA3_SPECIAL)

    def save(template):
        return write_gguf("llama3", "llama-bpe", tokens + LLAMA3_SPECIAL, types, [" ".join(m) for m in merges], template, bos=n, eos=n + 4)

    own = ["an unreachablewhole zqzq 123 //-- zqzqz 1234567", "unreachablewhole //--\n"]
    if compare("Llama 3", save(None), ref, texts + own, BOS, bos=n):
        fail("Llama 3: texts without round trip")
    ref.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in LLAMA3_SPECIAL])
    compare("Llama 3, special tokens read", save(None), ref, PAGE, SPECIAL)
    for name, text in LLAMA3_VARIANTS.items():
        chat(f"llama3, {name}", save(text), text, ref, "llama3")
    for name in ("Llama-3.1-8B", "Llama-3.2-3B", "Llama-3.3-70B"):
        path = TEMPLATES / f"meta-llama-{name}-Instruct.jinja"
        if not path.exists():
            skip(f"{name}'s template: it comes with llama.cpp's source (tools/deps llama)")
            continue
        chat(f"{name}'s template", save(path.read_text("utf-8")), path.read_text("utf-8"), ref, "llama3.1")


# Rules that a pattern and a vocabulary trained under it make. Qwen2's NFC is left out on both sides (docs/FORMATS.md).
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(tail):
    return rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{tail}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{tail}|"


SPLITS = {
    "qwen2": _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _TAIL,
    "tekken": _cased("") + r"\p{N}|" + _TAIL.replace("[\\r\\n]*|", "[\\r\\n/]*|", 1),
    "gpt-4o": _cased(_SHORT + "?") + r"\p{N}{1,3}|" + _TAIL.replace("[\\r\\n]*|", "[\\r\\n/]*|", 1),
    "smaug-bpe": LLAMA3_SPLIT,
}


def split_families(texts):
    some = texts[:3785] + texts[3785::8]
    for name, pattern in SPLITS.items():
        ref = Tokenizer(models.BPE())
        ref.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(use_regex=False)])
        ref.train_from_iterator(PAGE * 3 + texts[:6000], trainers.BpeTrainer(vocab_size=6000, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
        state = json.loads(ref.to_str())["model"]
        tokens = [t for t, _ in sorted(state["vocab"].items(), key=lambda kv: kv[1])]
        path = write_gguf(name, name, tokens, [NORMAL] * len(tokens), [" ".join(m) for m in state["merges"]])
        if compare(name, path, ref, some):
            fail(f"{name}: texts without round trip")
        imported_the_same(name, ref, path, tokens)


def imported_the_same(name, ref, path, tokens):
    """The folder's tokenizer.json gives the same rules."""
    from gguf import GGUFReader
    sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
    import families
    folder = TMP / f"folder-{name}"
    families.CONFIGS["tokens"] = families.base("qwen2", "Qwen2ForCausalLM", vocab_size=len(tokens), num_hidden_layers=1)
    families.write("tokens", folder)
    ref.save(str(folder / "tokenizer.json"))
    out = TMP / f"imported-{name}.gguf"
    p = subprocess.run([os.environ["DILEMMA"], "import", str(folder), "-o", str(out), "--quiet"], capture_output=True, text=True, timeout=120)
    if p.returncode:
        return fail(f"{name}: import: {p.stderr}")
    a, b = GGUFReader(out).fields, GGUFReader(path).fields
    for key in ("tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
        if a[key].contents() != b[key].contents():
            fail(f"{name}: {key} differs after import: {str(a[key].contents())[:80]}")


# --- conversations ----------------------------------------------------------------------------------------------------------

_CHATML = ("{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}")
_CHATML_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML_VARIANTS = {
    "no system message": "{% for message in messages %}" + _CHATML + "{% endfor %}" + _CHATML_PROMPT,
    "other quotes": "{% for message in messages %}" + _CHATML.replace("'", '"') + "{% endfor %}" + _CHATML_PROMPT,
    "its own system message": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
                              "{{ '<|im_start|>system\\nSprich \"wie\" ein Pirat.\\n<|im_end|>\\n' }}{% endif %}" + _CHATML + "{% endfor %}" + _CHATML_PROMPT,
    "in lines": "{%- for message in messages -%}\n    " + _CHATML.replace("{{", "{{- ") + "\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n"
                "    {{- '<|im_start|>assistant\\n' -}}\n{%- endif -%}\n",
    "prompt defined": "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
                      "{% for message in messages %}" + _CHATML + "{% endfor %}" + _CHATML_PROMPT,
}
_LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
           "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
           "{% endif %}{{ content }}{% endfor %}")
_LLAMA3_PROMPT = "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
LLAMA3_VARIANTS = {"always asks": _LLAMA3 + _LLAMA3_PROMPT, "asks": _LLAMA3 + "{% if add_generation_prompt %}" + _LLAMA3_PROMPT + "{% endif %}"}

CONVERSATIONS = [
    [("user", "Hi")],
    [("system", "Be terse."), ("user", "What is 2+2?")],
    [("user", "  spaces around \n\n"), ("assistant", "\n\nstarts with lines"), ("user", "\u00a0 no-break\u3000\x1c \u2028")],
    [("system", ""), ("user", ""), ("assistant", ""), ("user", "ok?")],
    [("user", "one"), ("system", "a system message that is not first"), ("user", "दो तीन 😀 12345 'quoted' \"twice\" \\n {{ x }} {% if %}")],
    [("user", "line\r\n\ttab"), ("assistant", "def f():\n    return 1\n"), ("user", "'s go")] * 3,
]


def chat(name, model, template, ref, kind):
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    render = env.from_string(template).render
    code, lines, note = run(model, [(ord("N"), "")] + [(ord("C"), "".join(f"{r}\0{c}\0" for r, c in conv)) for conv in CONVERSATIONS])
    if code or lines[0] != kind:
        return fail(f"{name}: recognised as {lines[:1]}: {note}")
    for conv, line in zip(CONVERSATIONS, lines[1:]):
        text = render(messages=[{"role": r, "content": c} for r, c in conv], add_generation_prompt=True, bos_token="<|begin_of_text|>")
        want = ref.encode(text, add_special_tokens=False).ids
        got = [int(x) for x in line.split()]
        if got != want:
            fail(f"{name}: {conv}\n  ours      {ref.decode(got, skip_special_tokens=False)!r}\n  reference {text!r}")
    print(f"{name}: {len(CONVERSATIONS)} conversations compared")


# Templates as the models' files have them; the long ones come with llama.cpp's source.
MODEL_TEMPLATES = {
    'llama2': "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    'mistral': "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    'mistral-v1': "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content'] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}\n    {%- endif %}\n    {%- if message['role'] == 'user' %}\n        {%- if loop.first and system_message is defined %}\n            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\n        {%- else %}\n            {{- ' [INST] ' + message['content'] + ' [/INST]' }}\n        {%- endif %}\n    {%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content'] + eos_token}}\n    {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') }}\n    {%- endif %}\n{%- endfor %}\n",
    'zephyr': "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    'phi3': "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}",
    'phi3-system': "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|system|>' + '\\n' + message['content'] + '<|end|>' + '\\n'}}{% elif (message['role'] == 'user') %}{{'<|user|>' + '\\n' + message['content'] + '<|end|>' + '\\n' + '<|assistant|>' + '\\n'}}{% elif message['role'] == 'assistant' %}{{message['content'] + '<|end|>' + '\\n'}}{% endif %}{% endfor %}",
    'phi3-last': "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    'phi4-mini': "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
    'gemma3': '{{ bos_token }}\n{%- if messages[0][\'role\'] == \'system\' -%}\n    {%- if messages[0][\'content\'] is string -%}\n        {%- set first_user_prefix = messages[0][\'content\'] + \'\\n\\n\' -%}\n    {%- else -%}\n        {%- set first_user_prefix = messages[0][\'content\'][0][\'text\'] + \'\\n\\n\' -%}\n    {%- endif -%}\n    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n    {%- set first_user_prefix = "" -%}\n    {%- set loop_messages = messages -%}\n{%- endif -%}\n{%- for message in loop_messages -%}\n    {%- if (message[\'role\'] == \'user\') != (loop.index0 % 2 == 0) -%}\n        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}\n    {%- endif -%}\n    {%- if (message[\'role\'] == \'assistant\') -%}\n        {%- set role = "model" -%}\n    {%- else -%}\n        {%- set role = message[\'role\'] -%}\n    {%- endif -%}\n    {{ \'<start_of_turn>\' + role + \'\\n\' + (first_user_prefix if loop.first else "") }}\n    {%- if message[\'content\'] is string -%}\n        {{ message[\'content\'] | trim }}\n    {%- elif message[\'content\'] is iterable -%}\n        {%- for item in message[\'content\'] -%}\n            {%- if item[\'type\'] == \'image\' -%}\n                {{ \'<start_of_image>\' }}\n            {%- elif item[\'type\'] == \'text\' -%}\n                {{ item[\'text\'] | trim }}\n            {%- endif -%}\n        {%- endfor -%}\n    {%- else -%}\n        {{ raise_exception("Invalid content type") }}\n    {%- endif -%}\n    {{ \'<end_of_turn>\\n\' }}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n    {{\'<start_of_turn>model\\n\'}}\n{%- endif -%}\n',
    'gemma': "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
}
LONG_TEMPLATES = {"gemma": "google-gemma-2-2b-it", "phi3.5": "microsoft-Phi-3.5-mini-instruct", "mistral-v3-tekken": "mistralai-Mistral-Nemo-Instruct-2407",
                  "smollm3": "HuggingFaceTB-SmolLM3-3B", "qwen2.5": "Qwen-Qwen2.5-7B-Instruct", "qwen3": "Qwen-Qwen3-0.6B"}
TALKS = [[("user", "Hi")], [("user", " two\n"), ("assistant", "\n an answer "), ("user", "'s and 3?")], [("system", " Be terse. "), ("user", "What is 2+2?")],
         [("system", "no tools /no_think  "), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "\n\nd"), ("user", "e")],
         [("system", ""), ("user", "")], [("assistant", "first"), ("user", "x")], [("user", "a"), ("user", "b")], [("user", "a"), ("assistant", "b")],
         [("user", "q"), ("assistant", "<think>\nwhy\n</think>\n\nso"), ("user", "q2"), ("assistant", "<think>w</think>s"), ("assistant", "<think>z</think>y")],
         [("system", "/think about it"), ("user", "\u00a0no\u3000 ")]]
MARKS = ["[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


def model_templates(texts):
    ref = Tokenizer(models.BPE())
    ref.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"), byte_level(use_regex=False)])
    ref.train_from_iterator(PAGE, trainers.BpeTrainer(vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    state = json.loads(ref.to_str())["model"]
    tokens = [t for t, _ in sorted(state["vocab"].items(), key=lambda kv: kv[1])]
    found = dict(MODEL_TEMPLATES)
    for kind, name in LONG_TEMPLATES.items():
        if (TEMPLATES / f"{name}.jinja").exists():
            found[kind] = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
    if len(found) < len(MODEL_TEMPLATES) + len(LONG_TEMPLATES) - 1:
        skip("the templates of Qwen and others: they come with llama.cpp's source (tools/deps llama)")
    for marked in (True, False):
        special = ["<s>", "</s>"] + (MARKS if marked else ["<|im_start|>", "<|im_end|>"])
        full = Tokenizer.from_str(ref.to_str())
        full.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
        for kind, text in found.items():
            path = write_gguf("template", "smaug-bpe", tokens + special, [NORMAL] * len(tokens) + [CONTROL] * len(special), [" ".join(m) for m in state["merges"]], text,
                              bos=len(tokens), eos=len(tokens) + 1)
            conversations(kind, path, text, full)


def conversations(kind, path, text, ref):
    def refuse(why):
        raise ValueError(why)
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = refuse
    for talk in TALKS:
        if ref.token_to_id("<think>") is not None and any("<think>" in c for _, c in talk):
            continue  # what a user writes never becomes a mark; the reference reads it as one
        try:
            rendered = env.from_string(text).render(messages=[{"role": r, "content": c} for r, c in talk], add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
            want = ref.encode(rendered, add_special_tokens=False).ids
        except ValueError:
            want = None
        code, lines, note = run(path, [(ord("N"), ""), (ord("C"), "".join(f"{r}\0{c}\0" for r, c in talk))])
        if lines[:1] != [kind]:
            return fail(f"template {kind}: recognised as {lines[:1]} {note}")
        got = [int(x) for x in lines[1].split()] if code == 0 else None
        if want != got:
            fail(f"template {kind}: {talk}\n  ours      {got and ref.decode(got, skip_special_tokens=False)!r} {note}\n  reference {want and rendered!r}")


# --- SentencePiece -----------------------------------------------------------------------------------------------------------

class Pieces:
    """sentencepiece's model with the methods of the other references that this test calls."""
    def __init__(self, sp): self.sp = sp
    def encode_batch(self, texts, add_special_tokens=False):
        return [type("Ids", (), {"ids": self.sp.encode(t)}) for t in texts]


def sentencepiece_model(texts, **settings):
    """Trained under Llama 2's settings."""
    import sentencepiece
    corpus = TMP / "corpus.txt"
    corpus.write_text("\n".join(t.replace("\n", " ")[:4000] for t in PAGE + texts if "\0" not in t), "utf-8")
    sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(TMP / "sp"), model_type="bpe", vocab_size=6000, hard_vocab_limit=False, byte_fallback=True,
                                             split_digits=True, allow_whitespace_only_pieces=True, normalization_rule_name="identity",
                                             remove_extra_whitespaces=False, character_coverage=0.9995, num_threads=1, minloglevel=2, **settings)
    return sentencepiece.SentencePieceProcessor(model_file=str(TMP / "sp.model"))


def write_pieces(sp, name, space_first=True, user=()):
    n = sp.vocab_size()
    path = TMP / f"{name}.gguf"
    w = GGUFWriter(path, "llama")
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([sp.id_to_piece(i) for i in range(n)])
    w.add_token_scores([sp.get_score(i) for i in range(n)])
    w.add_token_types([2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else USER if sp.id_to_piece(i) in user else 1
                       for i in range(n)])
    w.add_uint32("tokenizer.ggml.bos_token_id", sp.bos_id())
    w.add_uint32("tokenizer.ggml.eos_token_id", sp.eos_id())
    w.add_add_space_prefix(space_first)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    return path


def llama2(texts):
    # sentencepiece ends a text at a zero byte of its own, and nobody can tell U+2581 from a space afterwards
    texts = [t for t in texts if "\0" not in t and "\u2581" not in t]
    sp = sentencepiece_model(texts[:3000])
    path = write_pieces(sp, "llama2")
    if compare("Llama 2", path, Pieces(sp), texts, BOS, bos=sp.bos_id()):
        fail("Llama 2: texts without round trip")
    huge = "".join(texts[:2000])[:200000]
    compare("Llama 2, one long text", path, Pieces(sp), [huge, "a" * 50000, " " * 20000, "ab " * 20000])
    sp = sentencepiece_model(texts[:3000], add_dummy_prefix=False)
    compare("without a space first", write_pieces(sp, "llama2-bare", False), Pieces(sp), texts[:4000])


def gemma(texts):
    """Runs of spaces and lines are tokens of the user's own, which come before everything else."""
    texts = [t for t in texts if "\0" not in t and "\u2581" not in t]
    user = ["\n" * i for i in range(1, 32)] + ["\u2581" * i for i in range(2, 32)] + ["<table>", "</table>", "<h1>"]
    sp = sentencepiece_model(texts[:2000], add_dummy_prefix=False, user_defined_symbols=user)
    if compare("Gemma", write_pieces(sp, "gemma", False, user), Pieces(sp), texts[:12000] + PAGE + ["<table>\n\n   x<h1> </table>" * 9]):
        fail("Gemma: texts without round trip")


def model_alone(texts):
    """A folder with nothing but SentencePiece's own tokenizer.model: the ids of the library that made it."""
    texts = [t for t in texts if "\0" not in t and "\u2581" not in t]
    sys.path.insert(0, str(Path(__file__).resolve().parent / "oracle"))
    import families
    for name, settings in {"Llama 2": {}, "Gemma": {"add_dummy_prefix": False, "user_defined_symbols": ["\n", "\n\n", "\u2581\u2581", "<h1>"], "pad_id": 0, "eos_id": 1,
                                                    "bos_id": 2, "unk_id": 3}}.items():
        sp = sentencepiece_model(texts[:1500], **settings)
        folder, out = TMP / "alone", TMP / "alone.gguf"
        families.CONFIGS["alone"] = families.base("llama", "LlamaForCausalLM", vocab_size=sp.vocab_size() + 2, num_hidden_layers=1)
        families.write("alone", folder)
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.model").write_bytes((TMP / "sp.model").read_bytes())
        p = subprocess.run([os.environ["DILEMMA"], "import", str(folder), "-o", str(out), "--quiet"], capture_output=True, text=True, timeout=120)
        if p.returncode:
            fail(f"tokenizer.model alone: {p.stderr}")
        elif compare(f"tokenizer.model alone, as {name}", out, Pieces(sp), texts[:6000], BOS, bos=sp.bos_id()):
            fail("tokenizer.model alone: texts without round trip")


def main():
    if sys.argv[1:] == ["alone"]:
        return model_alone(PAGE + random_texts(3000)) or failures
    if sys.argv[1:] == ["templates"]:
        return model_templates([]) or failures
    given = data_texts()
    in_scripts, have = scripts.texts()
    print("characters by script:", dict(have.most_common()))
    texts = PAGE + random_texts(3000) + every_character() + in_scripts + given
    opt(texts)
    smollm2(texts)
    llama3(texts)
    llama2(texts)
    gemma(texts)
    model_alone(texts)
    split_families(texts)
    model_templates(texts)
    if skipped:
        print(f"{len(skipped)} SKIPPED, see above")
    print("FAILED" if failures else "passed", f"({failures} differences)")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

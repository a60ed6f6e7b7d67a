"""SQuAD's scores against the definition of the official script, and samples against Python's own JSON reader.

The C side is the unit test program in its --score and --load modes. Real answers come from DILEMMA_TEST_DATA; where it is absent,
random ones and the embedded set are compared, and that is said.
"""
import json
import os
import random
import re
import string
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

PROGRAM = Path(os.environ["DILEMMA"]).parent / "model.dataset_test"
DATA = Path(os.environ.get("DILEMMA_TEST_DATA", "/nonexistent"))
SOURCE = Path(os.environ.get("DILEMMA_SOURCE", Path(__file__).parent.parent))
TMP = Path(tempfile.mkdtemp(prefix="dilemma-data-"))
failures = 0


def fail(what):
    global failures
    failures += 1
    if failures <= 20:
        print("FAILED:", what)


# --- the official definition -------------------------------------------------------------------------------------------------

PUNCTUATION = set(string.punctuation)


def words(s):
    s = "".join(c for c in s.lower() if c not in PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", s).split()


def f1(gold, prediction):
    if not gold or not prediction:
        return float(gold == prediction)
    common = sum((Counter(gold) & Counter(prediction)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def scores(prediction, answers):
    gold = [w for w in map(words, answers) if w] or [[]]
    p = words(prediction)
    return max(float(g == p) for g in gold), max(f1(g, p) for g in gold)


# --- cases -------------------------------------------------------------------------------------------------------------------

def real_cases(questions, r):
    """Predictions as a model makes them: the answer, another one, parts, additions, other case and marks."""
    spare = [a for q in questions for a in q]
    for answers in questions:
        a = r.choice(answers)
        w = a.split()
        for p in (a, a.upper(), f"The {a}.", r.choice(spare), " ".join(w[:len(w) // 2]), f"{a} {r.choice(spare)}", " ".join(r.sample(w, len(w))),
                  f"\n{a}\nQuestion:", ""):
            yield p, answers


def random_cases(n, r):
    pool = ["the", "a", "an", "The", "A", "cat", "Cat", "café", "CAFÉ", "ÉÈ", "ΣΑΣ", "Σ", "ΑΣ.", "İx", "ǅ", "ẞ", "Ωmega", "1,000", "don't", "x-y", "_a_", "a_b",
            "a\u0301", "\u0301a", "日本", "the日", "a1", "1a", ".", "--", "'", "\u00a0", "\u3000", "\x1c", "\n", "\t", "\u200b", "a.", "(the)", "“a”", "a—the", "Ａ", "𝐀", "Ⅷ"]
    for _ in range(n):
        text = lambda: "".join(r.choice(pool) + r.choice(["", " ", " ", "  "]) for _ in range(r.randrange(7)))
        yield text(), [text() for _ in range(r.randrange(4))]


def compare_scores(name, cases):
    path = TMP / "records"
    with path.open("wb") as f:
        for p, answers in cases:
            f.write(p.encode() + b"\0" + bytes([len(answers)]) + b"".join(a.encode() + b"\0" for a in answers))
    out = subprocess.run([PROGRAM, "--score", path], capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()
    if len(out) != len(cases):
        return fail(f"{name}: {len(out)} scores of {len(cases)}")
    for (p, answers), line in zip(cases, out):
        got, want = tuple(map(float, line.split())), scores(p, answers)
        if abs(got[0] - want[0]) + abs(got[1] - want[1]) > 1e-12:
            fail(f"{name}: {p!r} for {answers!r}: {got}, official {want}")
    print(f"{name}: {len(cases)} predictions scored")


def lower_case(r):
    """Every character's lower case: as a word, beside a letter, against its own lower case."""
    chars = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000 and chr(c).lower() != chr(c)]
    chars += [chr(r.randrange(0x80, 0x30000)) for _ in range(3000)]
    return [(f"{c} x{c}x", [f"{c.lower()} x{c.lower()}x"]) for c in chars if not "\ud800" <= c <= "\udfff"]


def compare_samples(name, path, doc):
    out = subprocess.run([PROGRAM, "--load", path, "auto"], capture_output=True, text=True, timeout=300).stdout.splitlines()
    want = []
    for article in doc["data"]:
        for p in article["paragraphs"]:
            for q in p["qas"]:
                answers = [a["text"] for a in q["answers"]]
                fields = [f"Context: {p['context']}\nQuestion: {q['question']}\nAnswer:", " " + answers[0] if answers else ""] + answers
                want.append(" ".join([f.encode().hex() for f in fields] + [q["id"]]))
    if out != want:
        fail(f"{name}: {len(out)} samples, {len(want)} expected, the first that differs is "
             f"{next((i for i, (a, b) in enumerate(zip(out, want)) if a != b), min(len(out), len(want)))}")
    print(f"{name}: {len(want)} samples compared")


def main():
    seed = 20240712
    r = random.Random(seed)
    print("seed", seed)
    compare_scores("random", list(random_cases(60000, r)))
    compare_scores("lower case", lower_case(r))
    default = json.loads((SOURCE / "src/model/default_data.json").read_text("utf-8"))
    compare_samples("the embedded set", "", default)
    if not DATA.is_dir():
        print(f"SKIPPED: SQuAD's own answers: {DATA} is not there")
    else:
        for name in ("squad-train-subset44.json", "squad-dev-half.json"):
            doc = json.loads((DATA / name).read_text("utf-8"))
            compare_samples(name, DATA / name, doc)
            questions = [[a["text"] for a in q["answers"]] for article in doc["data"] for p in article["paragraphs"] for q in p["qas"]]
            compare_scores(name, list(real_cases(questions, r)))
    print("FAILED" if failures else "passed", f"({failures} differences)")
    return 1 if failures else 0


sys.exit(main())

"""GGUF files against the format's own library: `dilemma info` reads what it writes, and tells the same of the real model."""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import quantize
except ImportError as e:
    print(f"SKIPPED: {e} (tools/deps python)")
    sys.exit(77)

DILEMMA = os.environ["DILEMMA"]
MODEL = Path(os.environ.get("DILEMMA_TEST_MODEL", "/nonexistent"))


def info(path):
    out = subprocess.run([DILEMMA, "info", str(path), "--json", "--full", "--hash"], capture_output=True, timeout=120)
    assert out.returncode == 0, out.stderr.decode()
    return json.loads(out.stdout)


def check_tensors(got, reader):
    assert len(got["tensors"]) == len(reader.tensors)
    for mine, theirs in zip(got["tensors"], reader.tensors):
        assert mine["name"] == theirs.name
        assert mine["type"] == GGMLQuantizationType(theirs.tensor_type).name, theirs.name
        assert mine["ne"] == [int(n) for n in theirs.shape], theirs.name
        assert mine["bytes"] == theirs.n_bytes, theirs.name
        assert mine["blake2b"] == hashlib.blake2b(theirs.data.tobytes(), digest_size=32).hexdigest(), theirs.name


def check_metadata(got, reader):
    n = 0
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        n += 1
        want, mine = field.contents(), got["metadata"][key]
        if isinstance(want, float):
            assert abs(mine - want) <= 1e-6 * abs(want), (key, mine, want)
        elif isinstance(want, list) and want and isinstance(want[0], float):
            assert np.allclose(mine, want, rtol=1e-6), key
        else:
            assert mine == want, (key, mine, want)
    assert n == len(got["metadata"])


def every_kind_of_value_and_tensor(tmp):
    for align in (None, 8, 64, 4096):
        path = tmp / f"all-{align}.gguf"
        w = GGUFWriter(path, "test")
        if align:
            w.add_custom_alignment(align)
        w.add_uint8("a.u8", 255), w.add_int8("a.i8", -128), w.add_uint16("a.u16", 65535), w.add_int16("a.i16", -32768)
        w.add_uint32("a.u32", 2**32 - 1), w.add_int32("a.i32", -2**31), w.add_uint64("a.u64", 2**62), w.add_int64("a.i64", -2**63)
        w.add_float32("a.f32", 0.1), w.add_float64("a.f64", 1e300), w.add_bool("a.yes", True), w.add_bool("a.no", False)
        w.add_string("a.text", "Grüße, 世界"), w.add_string("a.empty", "")
        w.add_array("b.words", ["", "a", "Ġthe", "世界"]), w.add_array("b.ints", list(range(-50, 50))), w.add_array("b.nums", [0.5, -1.25])
        w.add_array("b.flags", [True, False, True])
        rng = np.random.default_rng(3)
        w.add_tensor("one", rng.standard_normal(7).astype(np.float32))
        w.add_tensor("half", rng.standard_normal((5, 3)).astype(np.float16))
        w.add_tensor("four", rng.standard_normal((2, 3, 4, 5)).astype(np.float32))
        w.add_tensor("ints", np.arange(9, dtype=np.int32))
        for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q5_1,
                     GGMLQuantizationType.BF16):
            w.add_tensor(f"q.{kind.name}", quantize(rng.standard_normal((3, 64)).astype(np.float32), kind), raw_dtype=kind)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        got, reader = info(path), GGUFReader(path)
        check_metadata(got, reader)
        check_tensors(got, reader)


def cut_short(tmp):
    whole = (tmp / "all-None.gguf").read_bytes()
    path = tmp / "cut.gguf"
    for n in (0, 3, 8, 30, len(whole) // 3, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:n])
        out = subprocess.run([DILEMMA, "info", str(path)], capture_output=True, timeout=60)
        assert out.returncode == 3 and b"cut.gguf" in out.stderr, (n, out)
    out = subprocess.run([DILEMMA, "info", str(tmp / "absent.gguf")], capture_output=True, timeout=60)
    assert out.returncode == 5, out


def the_real_model():
    if not MODEL.is_file():
        print("SKIPPED: no model at DILEMMA_TEST_MODEL")
        return
    got, reader = info(MODEL), GGUFReader(MODEL)
    check_metadata(got, reader)
    check_tensors(got, reader)
    params = sum(int(t.n_elements) for t in reader.tensors)
    size = sum(int(t.n_bytes) for t in reader.tensors)
    assert got["n_params"] == params and got["bytes"] == size
    assert abs(got["ratio_to_fp32"] - size / (4 * params)) < 1e-8


with tempfile.TemporaryDirectory(prefix="dilemma-gguf-") as d:
    every_kind_of_value_and_tensor(Path(d))
    cut_short(Path(d))
    the_real_model()
print("gguf: ok")

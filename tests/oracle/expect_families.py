"""Computes the expected logits of tests/families_test.py with transformers in fp32: run when a configuration is added or changed, in an
environment with torch and a transformers that knows all families (made with torch 2.6.0 and transformers 4.55.4).

    expect_families.py     writes families.npz: NAME -> [9 positions][96 entries + the norm of the whole row]"""
import shutil
import tempfile
from pathlib import Path

import families
import numpy as np
import torch
import transformers

out = {}
for name in families.CONFIGS:
    folder = tempfile.mkdtemp(prefix="oracle-")
    families.write(name, folder)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    bad = [k for k in info["missing_keys"] if k != "lm_head.weight"] + list(info["unexpected_keys"]) + list(info["mismatched_keys"])
    assert not bad, (name, bad)
    with torch.no_grad():
        logits = model.eval()(torch.tensor([families.token_ids(name)])).logits[0].numpy()
    shutil.rmtree(folder)
    rows = logits[families.POSITIONS]
    out[name] = np.hstack([rows[:, families.sampled(name)], np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)]).astype(np.float32)
    print(name, "logits from", rows.min(), "to", rows.max(), "std", rows.std())
np.savez_compressed(Path(__file__).parent / "families.npz", **out)

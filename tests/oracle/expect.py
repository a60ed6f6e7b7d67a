"""Computes the expected logits of tests/oracle_test.py with transformers in fp32: run once when a configuration is added or
changed, in an environment with torch and transformers (made with Debian 12's torch 1.13 and transformers 4.44.2).

    expect.py [NAME...]     writes NAME.npy: [8 positions][512 entries + the norm of the whole row]"""
import shutil
import sys
import tempfile
from pathlib import Path

import make_model
import numpy as np
import torch
import transformers


def expect(name):
    folder = tempfile.mkdtemp(prefix="oracle-")
    make_model.write(name, folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(torch.tensor([make_model.token_ids(name)])).logits[0].numpy()
    shutil.rmtree(folder)
    rows = logits[make_model.POSITIONS]
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    np.save(Path(__file__).parent / f"{name}.npy", np.hstack([rows[:, make_model.sampled(name)], norms]).astype(np.float32))
    print(name, "logits from", rows.min(), "to", rows.max(), "std", rows.std())


for n in sys.argv[1:] or make_model.CONFIGS:
    expect(n)

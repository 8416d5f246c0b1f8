#!/usr/bin/env bash
# In a masked language model such as BERT, the decoder and the word embeddings usually share one weight (they are tied).
# A LoRA adapter on one of the two changes that one only. merge_and_unload() adds the change to the shared weight,
# so the change also reaches the other one. The merged model then gives other outputs than the model with the adapter.
# peft knows this of causal models, and warns. But it looks for the layer names "embed_tokens" and "lm_head",
# which BERT does not have. So BERT's users get no warning, not even with safe_merge=True.
# With ensure_weight_tying=True, an option for tied layers, peft even says that no tied layer has an adapter.
# This affects users who train the embeddings or the decoder by LoRA, for example for words of a new domain.
# The cure is to give the decoder its own copy of the weight before the adapter is added or loaded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet peft==0.21.2 transformers==5.24.0 torch==2.13.0 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
import warnings
from importlib.metadata import version
from textwrap import shorten

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "tie_word_embeddings": True}
TOKENS = torch.arange(10, 50).unsqueeze(0)


def bert():
    return BertForMaskedLM(BertConfig(**SIZES))


def llama():
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def tried(make, layer, untie=False, **options):
    """Return by how much merging changes the outputs, how many top tokens it keeps, and what peft says of ties."""
    torch.manual_seed(0)
    model = make().eval()
    if untie:
        decoder = model.get_output_embeddings()
        decoder.weight = torch.nn.Parameter(decoder.weight.detach().clone())
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=[layer], **options)).eval()
        for name, weight in adapted.named_parameters():
            if "lora_" in name:  # as training would, give the adapter values
                weight.normal_(std=0.2)
        before = adapted(input_ids=TOKENS).logits
        after = adapted.merge_and_unload(safe_merge=True)(input_ids=TOKENS).logits
    texts = [str(warning.message) for warning in caught]
    said = [text for text in texts if "tie" in text or "tying" in text]
    kept = int((before.argmax(-1) == after.argmax(-1)).sum())
    return round(float((before - after).abs().max()), 4), kept, said


def line(name, result):
    print(f"{name:44} largest difference {result[0]:.4f}, same top token at {result[1]:2} of {TOKENS.shape[1]} places")
    for text in result[2]:
        print("    peft warns:", shorten(text, 140))
    if not result[2]:
        print("    peft warns of nothing")


embeddings = tried(bert, "word_embeddings")
decoder = tried(bert, "decoder")
ensured = tried(bert, "word_embeddings", ensure_weight_tying=True)
value = tried(bert, "value")
untied = tried(bert, "word_embeddings", untie=True)
causal = tried(llama, "embed_tokens")
print("peft", version("peft"), "transformers", version("transformers"), "torch", version("torch"))
print("Seen: merging an adapter on a tied BERT's embeddings or decoder changes the outputs. peft does not warn of it.")
print("Expected: merge_and_unload() gives a standalone model of the same outputs, but for rounding. Where it cannot,")
print("  peft should refuse or warn, as it warns for the tied embeddings of a Llama.")
line("BERT, adapter on word_embeddings:", embeddings)
line("BERT, adapter on decoder:", decoder)
line("BERT, word_embeddings, ensure_weight_tying:", ensured)
line("BERT, adapter on value (not tied):", value)
line("BERT, untied first, word_embeddings:", untied)
line("Llama, adapter on embed_tokens:", causal)
as_described = min(embeddings[0], decoder[0], ensured[0]) > 0.1 and not embeddings[2] and not decoder[2]
as_described = as_described and any("no tied modules are added" in text for text in ensured[2])
as_described = as_described and max(value[0], untied[0]) < 0.001
as_described = as_described and any("can lead to complications" in text for text in causal[2])
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY

#!/usr/bin/env bash
# A repository's tokenizer.json holds the whole tokenizer, with its normalizer: whether texts are lowercased, and whether
# accents are removed. A reader would expect that AutoTokenizer follows it, as transformers 4 does.
# transformers 5 makes a BertTokenizer from the vocabulary alone. Its normalizer then follows do_lower_case in
# tokenizer_config.json, and without this key texts are lowercased and lose their accents. No warning says so.
# So a cased model whose tokenizer_config.json lacks the key gets other token ids after an update. For a sparse model,
# these are other terms: an index made with version 4 and queries made with version 5 no longer match.
# To be safe, write do_lower_case and strip_accents into tokenizer_config.json, or read tokenizer.json with tokenizers.
# Expected: the same tokens from tokenizers, transformers 4.57.3 and 5.24.0.
# Seen: "Paris", "café" from the first two, and "paris", "cafe" from transformers 5.24.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
changed=0
for version in 4.57.3 5.24.0; do
  python3 -m venv "venv-$version"
  "venv-$version/bin/pip" install --quiet "transformers==$version" ||
    { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
  "venv-$version/bin/python" - 2>errors <<'PY' || changed=1
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paris", "Paris", "cafe", "café"]
tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.NFC()  # keeps capital letters and accents
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
Path("model").mkdir(exist_ok=True)
tokenizer.save("model/tokenizer.json")
Path("model/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
Path("model/config.json").write_text(json.dumps({"model_type": "bert"}))

text = "Paris café"
right = tokenizer.encode(text).tokens
found = transformers.AutoTokenizer.from_pretrained("model").tokenize(text)
print(f"transformers {transformers.__version__}: tokenizers {right}, AutoTokenizer {found}")
new = transformers.__version__.startswith("5.")
sys.exit(found != (["paris", "cafe"] if new else right))
PY
done
exit "$changed"

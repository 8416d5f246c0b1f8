"""Damages copies of model folders at random. Each copy must load, or be refused with one of two errors."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling
from sentence_transformers.sparse_encoder.modules import Transformer as MLMTransformer
from transformers import AutoModelForMaskedLM

from splade_integrations import SpladeEncoder, UnsupportedModelError
from tests.support.random_checkpoints import save_bge_m3, save_decoder, save_masked_lm

__all__ = ["KINDS", "mutated", "outcomes"]

# An integer of too many digits for Python. json cannot write it, so `_text` writes its digits in place of its name.
_HUGE, _HUGE_DIGITS = "an integer of 5000 digits", "1" * 5000
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 2**20, 10**9, 10**30, 10**400, 1e30, float("inf"), float("-inf"), float("nan"), _HUGE),
    *("", "no such thing", "../../x", "/etc/passwd", "a\0b", "\ud800", "x" * 5000, "a/" * 3000),
    *([], [1, "a"], [[]], {}, {"type": 5}, {"a": []}, [{}, {}]),
)
# Keys that transformers or sentence-transformers read, although our random checkpoints do not state them.
_ADDED: dict[str, tuple[Any, ...]] = {
    "config.json": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {}},
        {"quantization_config": 5},
        {"quantization_config": {"quant_method": []}},
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_2"},
        {"attn_implementation": "org/kernels"},
        {"attn_implementation": {"": 5}},
        {"_attn_implementation_internal": "flash_attention_3"},
        {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForMaskedLM": "evil.Model"}},
        {"auto_map": []},
        {"dtype": "float4"},
        {"torch_dtype": "os.system"},
        {"dtype": {"": "float32"}},
        {"architectures": [5]},
        {"num_labels": -1},
        {"id2label": {"a": "b"}},
        {"pruned_heads": {"0": [0, 1]}},
        {"transformers_weights": "../other.safetensors"},
        {"sub_configs": 5},
        {"rope_parameters": []},
        {"layer_types": ["no such"]},
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"tokenizer_class": ["a"]},
    ),
    "config_sentence_transformers.json": (
        {"default_prompt_name": ["query"]},
        {"default_prompt_name": {}},
        {"default_prompt_name": "missing"},
        {"max_active_dims": float("inf")},
        {"max_active_dims": "12"},
        {"max_active_dims": 2.5},
        {"prompts": {"query": ["a"]}},
    ),
    "tokenizer_config.json": (
        {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}},
        {"tokenizer_class": "JumanppTokenizer"},
        {"added_tokens_decoder": {"a": {}}},
        {"added_tokens_decoder": []},
        {"chat_template": {}},
        {"tokenizer_file": "/etc/passwd"},
        {"vocab_file": "/etc/passwd"},
        {"fix_mistral_regex": True},
        {"truncation_side": "middle"},
        {"padding_side": 5},
    ),
}


def mutated(
    folder: Path, target: Path, count: int, seed: int = 0, only: str | None = None
) -> Iterator[tuple[str, Path]]:
    """Yield (what was damaged, the damaged copy) `count` times. Each copy replaces the one before.

    A mutation deletes a file, empties it, cuts it, changes some of its bytes, changes one value of its JSON or of the
    header of its safetensors, replaces its JSON by another value, or adds a key that the libraries read.

    Args:
        folder: The folder to copy.
        target: The folder for the copies. It must not exist.
        count: The number of copies.
        seed: The seed of the random choices.
        only: The name of the files to damage. None means all files.
    """
    choose = random.Random(seed)
    for _ in range(count):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        files = sorted(path for path in target.rglob("*") if path.is_file() and path.name != "README.md")
        files = [path for path in files if only in (None, path.name)]
        file = choose.choice(files)
        kinds: list[Callable[[Path, random.Random], str]] = [_delete, _empty, _cut, _change_bytes]
        if file.suffix == ".json":
            kinds += [_change_value] * 8 + [_replace_all] + [_add_key] * 4 * (file.name in _ADDED)
        elif file.suffix == ".safetensors":
            kinds += [_change_header] * 6
        yield f"{choose.choice(kinds)(file, choose)} {file.relative_to(target)}", target


def _delete(file: Path, choose: random.Random) -> str:
    file.unlink()
    return "deleted"


def _empty(file: Path, choose: random.Random) -> str:
    file.write_bytes(b"")
    return "emptied"


def _cut(file: Path, choose: random.Random) -> str:
    content = file.read_bytes()
    file.write_bytes(content[: choose.randrange(max(1, len(content)))])
    return "cut"


def _change_bytes(file: Path, choose: random.Random) -> str:
    content = bytearray(file.read_bytes())
    for _ in range(8):
        content[choose.randrange(len(content))] = choose.randrange(256)
    file.write_bytes(content)
    return "changed bytes of"


def _change_value(file: Path, choose: random.Random) -> str:
    content = json.loads(file.read_text(encoding="utf-8"))
    damage = _changed(content, choose)
    file.write_text(_text(content))
    return f"{damage} in"


def _replace_all(file: Path, choose: random.Random) -> str:
    value = choose.choice(_ODD)
    file.write_text(_text(value))
    return f"replaced by {value!r:.40}"


def _add_key(file: Path, choose: random.Random) -> str:
    content = json.loads(file.read_text(encoding="utf-8"))
    added = choose.choice(_ADDED[file.name])
    file.write_text(_text({**content, **added}))
    return f"added {added} to"


def _change_header(file: Path, choose: random.Random) -> str:
    """Change one value in a safetensors header. A file holds the header's length in 8 bytes, its JSON, and tensors."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    damage = _changed(header, choose)
    new = _text(header).encode()
    file.write_bytes(len(new).to_bytes(8, "little") + new + content[end:])
    return f"{damage} in the header of"


def _changed(content: Any, choose: random.Random) -> str:
    """Replace one value of a JSON document, or remove it, and return what was done."""
    places = list(_places(content))
    if not places:
        return "nothing changed"
    parent, key = choose.choice(places)
    if choose.random() < 0.1:
        del parent[key]
        return f"removed {key!r:.40}"
    parent[key] = value = choose.choice(_ODD)
    return f"set {key!r:.40} to {value!r:.40}"


def _text(content: Any) -> str:
    return json.dumps(content).replace(f'"{_HUGE}"', _HUGE_DIGITS)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (parent, key) for each value of a JSON document, but for at most 40 values of each parent."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:40]:
        yield content, key
        yield from _places(value)


def outcomes(kind: str, folder: Path, count: int, seed: int = 0, *, only: str | None = None) -> Counter[str]:
    """Return how many of `count` damaged folders of a kind load and encode, and how many are refused by each error.

    Args:
        kind: One of `KINDS`.
        folder: An empty folder to work in.
        count: The number of damaged folders.
        seed: The seed of the random choices.
        only: The name of the files to damage. None means all files.
    Raises:
        AssertionError: Damaged folders end in errors of other types. The message says what was damaged in each.
    """
    found: Counter[str] = Counter()
    wrong: list[str] = []
    last: Exception | None = None
    whole = KINDS[kind](folder)
    with suppress(UnsupportedModelError):
        _use(whole)
        found["undamaged: loads"] += 1
    for damage, copy in mutated(whole, folder / "copy" / whole.name, count, seed, only):
        try:
            _use(copy)
            found["loads"] += 1
        except (FileNotFoundError, UnsupportedModelError) as err:
            found[type(err).__name__] += 1
        except BaseException as err:
            if isinstance(err, KeyboardInterrupt | SystemExit):
                raise
            last = err if isinstance(err, Exception) else None
            wrong.append(f"{kind}: {damage} ended in {type(err).__name__}: {str(err)[:200]}")
    if wrong:
        raise AssertionError("\n".join(wrong)) from last
    return found


def _use(folder: Path) -> None:
    encoder = SpladeEncoder(folder, device="cpu")
    encoder.encode_documents(["ab c"])
    encoder.encode_queries(["ab"])
    encoder.fingerprint  # noqa: B018


def _adapter(folder: Path) -> Path:
    whole = folder / "adapter"
    save_masked_lm(whole, "bert")
    model = get_peft_model(
        AutoModelForMaskedLM.from_pretrained(whole), LoraConfig(r=4, target_modules=["query", "decoder"])
    )
    model.save_pretrained(whole)
    return whole


def _opensearch_router(folder: Path) -> Path:
    save_masked_lm(folder / "plain", "distilbert")
    document = MLMTransformer(str(folder / "plain"), transformer_task="fill-mask")
    query = SparseStaticEmbedding(document.tokenizer, weight=torch.ones(len(document.tokenizer)), frozen=True)
    router = Router.for_query_document(query_modules=[query], document_modules=[document, SpladePooling()])
    whole = folder / "opensearch-neural-sparse-encoding-doc-v3-distill"
    SparseEncoder(modules=[router]).save_pretrained(str(whole))
    return whole


def _opensearch_root(folder: Path) -> Path:
    whole = folder / "opensearch-neural-sparse-encoding-doc-v2-mini"
    save_masked_lm(whole, "distilbert")
    (whole / "idf.json").write_text(json.dumps({"a": 1.5, "b": 2}))
    return whole


def _lowercased(folder: Path) -> Path:
    whole = folder / "lowercased"
    save_masked_lm(whole, "modernbert")
    settings = json.loads((whole / "tokenizer_config.json").read_text())
    (whole / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": True}))
    return whole


def _sharded(folder: Path) -> Path:
    whole = folder / "sharded"
    save_masked_lm(whole, "xlm-roberta")
    model = AutoModelForMaskedLM.from_pretrained(whole)
    (whole / "model.safetensors").unlink()
    model.save_pretrained(whole, max_shard_size="40KB")
    return whole


def _symmetric(folder: Path) -> Path:
    save_masked_lm(folder / "plain", "roberta")
    transformer = MLMTransformer(str(folder / "plain"), transformer_task="fill-mask")
    prompts = {"query": "q: ", "document": "d: "}
    whole = folder / "symmetric"
    SparseEncoder(
        modules=[transformer, SpladePooling()], prompts=prompts, default_prompt_name="query", max_active_dims=40
    ).save_pretrained(str(whole))
    return whole


def _two_encoders(folder: Path) -> Path:
    parts = {}
    for role, architecture in (("document", "bert"), ("query", "distilbert")):
        save_masked_lm(folder / role, architecture)
        parts[role] = [MLMTransformer(str(folder / role), transformer_task="fill-mask"), SpladePooling()]
    router = Router.for_query_document(query_modules=parts["query"], document_modules=parts["document"])
    whole = folder / "two-encoders"
    SparseEncoder(modules=[router]).save_pretrained(str(whole))
    return whole


def _onnx_alone(folder: Path) -> Path:
    whole = folder / "Splade_PP_en_v1"
    save_masked_lm(whole, "bert")
    (whole / "model.safetensors").rename(whole / "model.onnx")
    return whole


def _bge_m3(folder: Path) -> Path:
    whole = folder / "bge-m3"
    save_bge_m3(whole)
    return whole


def _decoder(folder: Path) -> Path:
    whole = folder / "decoder"
    save_decoder(whole)
    return whole


# {kind: a function that saves a whole folder of this kind in a folder, and returns it}.
KINDS: dict[str, Callable[[Path], Path]] = {
    "checkpoint with an adapter": _adapter,
    "OpenSearch v3, router": _opensearch_router,
    "OpenSearch, root": _opensearch_root,
    "lowercased texts": _lowercased,
    "weights in shards": _sharded,
    "sentence-transformers, symmetric": _symmetric,
    "router of two encoders": _two_encoders,
    "ONNX alone": _onnx_alone,
    "BGE-M3": _bge_m3,
    "decoder": _decoder,
}

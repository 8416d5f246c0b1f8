"""Damages copies of model folders at random, to see that each one loads or is refused with one of two errors."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
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

_ODD: tuple[Any, ...] = (None, True, -1, 0, 3, 1e30, "", "no such thing", "../../x", [], [1, "a"], {}, {"type": 5})


def mutated(folder: Path, target: Path, count: int, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """Yield (what was damaged, the damaged copy) `count` times. Each copy replaces the one before.

    A mutation deletes a file, empties it, cuts it, changes some of its bytes, or changes one value of its JSON.

    Args:
        folder: The folder to copy.
        target: The folder for the copies. It must not exist.
        count: The number of copies.
        seed: The seed of the random choices.
    """
    choose = random.Random(seed)
    for _ in range(count):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        files = sorted(path for path in target.rglob("*") if path.is_file() and path.name != "README.md")
        file = choose.choice(files)
        kinds = [_delete, _empty, _cut, _change_bytes, *[_change_value] * 6 * (file.suffix == ".json")]
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
    places = list(_places(content))
    if not places:
        file.write_text(json.dumps(choose.choice(_ODD)))
        return "replaced"
    parent, key = choose.choice(places)
    value = choose.choice(_ODD)
    parent[key] = value
    file.write_text(json.dumps(content))
    return f"set {key} to {value!r} in"


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (parent, key) of each value of a JSON document, but of no more than 40 values of one parent."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:40]:
        yield content, key
        yield from _places(value)


def outcomes(kind: str, folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Return how many of `count` damaged folders of a kind load and encode, and how many are refused by each error.

    Args:
        kind: One of `KINDS`.
        folder: An empty folder to work in.
        count: The number of damaged folders.
        seed: The seed of the random choices.
    Raises:
        AssertionError: A damaged folder ends in an error of another type. The message says what was damaged.
    """
    found: Counter[str] = Counter()
    whole = KINDS[kind](folder)
    for damage, copy in mutated(whole, folder / "copy" / whole.name, count, seed):
        try:
            encoder = SpladeEncoder(copy, device="cpu")
            encoder.encode_documents(["ab c"])
            encoder.encode_queries(["ab"])
            encoder.fingerprint  # noqa: B018
            found["loads"] += 1
        except (FileNotFoundError, UnsupportedModelError) as err:
            found[type(err).__name__] += 1
        except Exception as err:
            raise AssertionError(f"{kind}: {damage} ended in {type(err).__name__}: {err}") from err
    return found


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
    "ONNX alone": _onnx_alone,
    "BGE-M3": _bge_m3,
    "decoder": _decoder,
}

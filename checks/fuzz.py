"""Check that no text, option, file, filter or request causes an undocumented error or a hang.

    python -m checks.fuzz [--examples 400] [--folders 40] [--seed 0]
    python -m checks.fuzz --guided 60        # needs atheris: follows the branches of the code, 60 seconds per function

hypothesis makes the inputs. It keeps failed inputs in .cache/fuzz, and the next run begins with them. Files of model
folders are damaged at random: first files of any kind, then files of one kind only. The exit status is 1 if an input
causes an undocumented error or NaN, or takes longer than two minutes.
"""

import argparse
import faulthandler
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from benchmarks.workload import quiet
from checks.figures import Figures
from checks.targets import TARGETS

__all__ = ["main", "run"]

_SECONDS = 120
# {file that is damaged alone: the kinds of model folders in which it is damaged}
_FILES = {
    "config.json": ("sentence-transformers, symmetric", "OpenSearch, root", "decoder", "BGE-M3"),
    "tokenizer.json": ("sentence-transformers, symmetric", "OpenSearch, root", "decoder", "BGE-M3"),
    "tokenizer_config.json": ("OpenSearch, root", "lowercased texts"),
    "model.safetensors": ("sentence-transformers, symmetric", "OpenSearch v3, router"),
    "model.safetensors.index.json": ("weights in shards",),
    "modules.json": ("sentence-transformers, symmetric", "router of two encoders"),
    "router_config.json": ("router of two encoders", "OpenSearch v3, router"),
    "config_sentence_transformers.json": ("sentence-transformers, symmetric",),
}
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
_KEYS = st.text(max_size=10) | st.sampled_from(
    ["$and", "$or", "$not", "$eq", "$in", "$nin", "$gt", "$exists", "$like", "year", "name", "tags", "inputs"]
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


def _nested(levels: int, value: Any, key: str | None) -> Any:
    """Return a value inside `levels` nested lists, or inside nested dicts if a key is given."""
    for _ in range(levels):
        value = [value] if key is None else {key: [value] if key in ("$and", "$or") else value}
    return value


_DEEP = st.builds(_nested, st.integers(1, 990), _SCALARS, st.none() | _KEYS)
_VALUES: st.SearchStrategy[Any] = _JSON | st.builds(dict, year=_DEEP) | _DEEP
_LINES = st.lists(
    st.dictionaries(
        st.sampled_from(["_id", "id", "text", "title", "n", "inputs", "index", "value"]), _JSON, max_size=4
    ),
    max_size=4,
).map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode())
_BYTES = (
    st.binary(max_size=200)
    | _LINES
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.integers(1, 5000).map(lambda levels: b'{"text": "a", "n": ' + b"[" * levels + b"]" * levels + b"}")
    | st.text(alphabet='{}[]",:\\n\\t\\0 0123456789eE+-.texid_\ud800', max_size=80).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m checks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=400, help="inputs for each function (default 400, 0: none)")
    parser.add_argument("--folders", type=int, default=40, help="damaged folders per kind (default 40)")
    parser.add_argument("--files", type=int, default=400, help="damaged folders for each kind of file (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices (default 0)")
    parser.add_argument("--guided", type=int, metavar="SECONDS", help="run atheris for this time on each function")
    options = parser.parse_args(arguments)
    if options.guided:
        from checks.guided import guided

        return guided(options.guided)
    quiet()
    figures = Figures()
    run(figures, options.examples, options.seed)
    damaged_folders(figures, options.folders, options.files, options.seed)
    return figures.exit_status()


def run(figures: Figures, examples: int, number: int) -> None:
    """Pass inputs from hypothesis to the functions that read data from outside, and to an encoder."""
    if not examples:
        return
    for name, (function, takes_bytes) in TARGETS.items():
        _try(figures, name, function, _BYTES if takes_bytes else _VALUES, examples, number)
    with tempfile.TemporaryDirectory() as folder:
        encode, make = _encoder_targets(Path(folder))
        _try(figures, "texts", encode, st.lists(_texts(), max_size=5), examples, number)
        _try(figures, "options of an encoder", make, _options(), examples, number)


def damaged_folders(figures: Figures, folders: int, files: int, number: int) -> None:
    """Load model folders with damaged files."""
    from tests.support.mutated_folders import KINDS, outcomes

    def load(requirement: str, kind: str, count: int, only: str | None) -> None:
        faulthandler.dump_traceback_later(_SECONDS + count, exit=True, file=2)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = outcomes(kind, Path(folder), count, number, only=only)
            except AssertionError as err:
                figures.add(requirement, False, err)
            else:
                figures.add(requirement, True, ", ".join(f"{count} {name}" for name, count in sorted(found.items())))
        faulthandler.cancel_dump_traceback_later()

    for kind in KINDS if folders else ():
        load(f"damaged folders, {kind}", kind, folders, None)
    for file, kinds in _FILES.items() if files else ():
        for kind in kinds:
            load(f"damaged {file}, {kind}", kind, -(-files // len(kinds)), file)


def _try(figures: Figures, name: str, function: Callable[[Any], None], inputs: Any, examples: int, number: int) -> None:
    tried = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=DirectoryBasedExampleDatabase(".cache/fuzz"),
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(inputs)
    def test(value: Any) -> None:
        nonlocal tried
        tried += 1
        faulthandler.dump_traceback_later(_SECONDS, exit=True, file=2)
        function(value)

    try:
        test()
    except BaseException as err:
        if isinstance(err, KeyboardInterrupt):
            raise
        figures.add(f"fuzzed {name}", False, f"{type(err).__name__}: {str(err)[:300]} {getattr(err, '__notes__', '')}")
    else:
        figures.add(f"fuzzed {name}", True, f"{tried} inputs, no undocumented error")
    finally:
        faulthandler.cancel_dump_traceback_later()


def _texts() -> st.SearchStrategy[Any]:
    any_text = st.text(st.characters(codec=None), max_size=60)
    odd = st.sampled_from(["[SEP] [MASK]", "\x00", "\ud800", "a" * 5000, "😀" * 300, " " * 999, "\u202e", "<s></s>"])
    return any_text | odd | st.builds("".join, st.lists(any_text | odd, max_size=4)) | st.integers() | st.none()


def _options() -> st.SearchStrategy[dict[str, Any]]:
    names = ["device", "dtype", "backend", "max_length", "long_documents", "max_windows", "max_batch_tokens",
             "batch_size", "query_prompt", "document_prompt", "query_pruning", "document_pruning", "pooling_strategy",
             "activation_function", "special_terms", "lower_case", "revision", "no_such_option"]  # fmt: skip
    known = ["cpu", "cuda:99", "float32", "bfloat16", "float16", "int8", "torch", "max", "truncate", "sum", "relu",
             "log1p_relu", "keep", "drop", "auto", 1, 2, 3, 128, 129, 10**30, float("nan"), True]  # fmt: skip
    return st.dictionaries(st.sampled_from(names), st.sampled_from(known) | _JSON, max_size=3)


def _encoder_targets(folder: Path) -> tuple[Callable[[Any], None], Callable[[Any], None]]:
    import numpy as np

    from splade_integrations import SpladeEncoder
    from splade_integrations.errors import OptionalDependencyError
    from tests.support.random_checkpoints import save_masked_lm

    save_masked_lm(folder, "bert")
    encoder = SpladeEncoder(folder, device="cpu")

    def encode(texts: list[Any]) -> None:
        try:
            rows = encoder.encode_documents(texts)
        except TypeError as err:
            assert "texts[" in str(err)
            return
        assert rows.shape == (len(texts), encoder.dim)
        assert np.isfinite(rows.data).all()
        for text, row in zip(texts, rows.toarray(), strict=True):
            np.testing.assert_allclose(encoder.encode_documents([text]).toarray()[0], row, atol=1e-5)
        encoder.encode_queries(texts)

    def make(options: dict[str, Any]) -> None:
        with suppress(ValueError, TypeError, OptionalDependencyError):
            SpladeEncoder(folder, **options).encode_documents(["a b"])

    return encode, make


if __name__ == "__main__":
    sys.exit(main())

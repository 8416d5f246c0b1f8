"""A tokenizer read from tokenizer.json alone equals transformers' tokenizer. If it might not, transformers makes it."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from splade_integrations.encoding.tokenizer import TextTokenizer, load_tokenizer
from splade_integrations.encoding.tokenizer_file import read_tokenizer_file
from splade_integrations.models.repository import Repository
from tests.support.random_checkpoints import save_masked_lm

ODD = [
    "", " ", "naïve café ÀÉÎ", "日本語のテキスト", "😀🏳️‍🌈", "a\x00b", "tab\tand\nnewline", "x" * 5000,
    "Who cracked it?", "[SEP] [MASK] [CLS] [PAD] x", "[sep] <s> </s>", "don't re-use U.S.A. ##ing", "ﬁne ½ ﷺ Straße",
    "new word [NEW] here",
]  # fmt: skip


@pytest.fixture
def folder(model_folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{model_folder}/{name}", tmp_path)
    return tmp_path


def stated(folder, **values):
    path = folder / "tokenizer_config.json"
    kept = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in kept.items() if value is not ...}))


def change_tokenizer(folder, change):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))


def add_token(tokenizer):
    tokenizer.add_tokens(["[NEW]"])


def upper_case(folder):
    from tokenizers.normalizers import BertNormalizer

    change_tokenizer(folder, lambda tokenizer: setattr(tokenizer, "normalizer", BertNormalizer(lowercase=False)))


def other_ends(folder):
    ends = processors.TemplateProcessing("[CLS] $A [PAD]", special_tokens=[("[CLS]", 101), ("[PAD]", 0)])
    change_tokenizer(folder, lambda tokenizer: setattr(tokenizer, "post_processor", ends))


def generic_without_ends(folder):
    stated(folder, tokenizer_class="PreTrainedTokenizerFast", add_bos_token=False)


SAME = {
    "as published": lambda folder: None,
    "a name of an older release": lambda folder: stated(folder, tokenizer_class="BertTokenizerFast"),
    "DistilBERT's name": lambda folder: stated(folder, tokenizer_class="DistilBertTokenizer"),
    "no name": lambda folder: stated(folder, tokenizer_class=...),
    "no length": lambda folder: stated(folder, model_max_length=..., max_length=...),
    "cut at the left": lambda folder: stated(folder, truncation_side="left"),
    "a generic tokenizer": lambda folder: stated(folder, tokenizer_class="PreTrainedTokenizerFast"),
    "a further token": lambda folder: change_tokenizer(folder, add_token),
    "case kept, in both files": lambda folder: (upper_case(folder), stated(folder, do_lower_case=False)),
    "a generic tokenizer that keeps case": lambda folder: (
        upper_case(folder), stated(folder, tokenizer_class="PreTrainedTokenizerFast")
    ),
}  # fmt: skip
LEFT_TO_TRANSFORMERS = {
    "case kept, in tokenizer.json alone": upper_case,
    "case kept, in tokenizer_config.json alone": lambda folder: stated(folder, do_lower_case=False),
    "other tokens around a text": other_ends,
    "no separator": lambda folder: stated(folder, sep_token=None),
    "no first token": lambda folder: stated(folder, cls_token=None),
    "a generic tokenizer that states what is put before a text": generic_without_ends,
    "another file": lambda folder: stated(folder, fast_tokenizer_files=["tokenizer.json", "tokenizer.5.0.0.json"]),
    "another class": lambda folder: stated(folder, tokenizer_class="RobertaTokenizer"),
    "own code": lambda folder: stated(folder, auto_map={"AutoTokenizer": ["own.Tokenizer", None]}),
    "a special token that tokenizer.json lacks": lambda folder: stated(folder, bos_token="[BOS]"),
    "further special tokens by name": lambda folder: stated(folder, extra_special_tokens={"image_token": "[IMG]"}),
    "no tokenizer.json": lambda folder: (folder / "tokenizer.json").unlink(),
    "a damaged tokenizer.json": lambda folder: (folder / "tokenizer.json").write_text("{}"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_it_equals_the_tokenizer_of_transformers(folder, change):
    change(folder)
    ours, theirs = read_tokenizer_file(Repository(str(folder)), ""), AutoTokenizer.from_pretrained(folder)
    assert ours is not None
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.model_max_length, ours.truncation_side) == (theirs.model_max_length, theirs.truncation_side)
    assert (ours.pad_token_id, ours.unk_token_id) == (theirs.pad_token_id, theirs.unk_token_id)
    assert set(ours.all_special_ids) == set(theirs.all_special_ids)
    assert ours.num_special_tokens_to_add() == theirs.num_special_tokens_to_add()
    ids = [0, 101, 2000, 2001, 10**6]
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert ours.convert_tokens_to_string(["who", "##se"]) == theirs.convert_tokens_to_string(["who", "##se"])
    for specials in (True, False):
        tokenize, oracle = (TextTokenizer(one, 16, add_special_tokens=specials) for one in (ours, theirs))
        assert tokenize(ODD, 3) == oracle(ODD, 3)


@pytest.mark.parametrize("change", LEFT_TO_TRANSFORMERS.values(), ids=LEFT_TO_TRANSFORMERS.keys())
def test_what_may_differ_is_left_to_transformers(folder, change):
    change(folder)
    assert read_tokenizer_file(Repository(str(folder)), "") is None


def test_other_kinds_are_left_to_transformers(tmp_path):
    save_masked_lm(tmp_path, "roberta")
    assert read_tokenizer_file(Repository(str(tmp_path)), "") is None


def test_a_normalizer_that_transformers_changes_is_named(folder, caplog):
    repository = Repository(str(folder), {})
    stated(folder, do_lower_case=True)
    load_tokenizer(repository, "")
    assert caplog.text == ""
    upper_case(folder)
    load_tokenizer(repository, "")
    assert "turns 'Élan' into 'Élan'. The tokenizer that transformers makes gives 'elan'" in caplog.text
    caplog.clear()
    stated(folder, do_lower_case=False)
    load_tokenizer(repository, "")
    assert caplog.text == ""

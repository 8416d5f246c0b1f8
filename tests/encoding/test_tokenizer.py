"""Slow tokenizers, which are written in Python, return the same ids as fast ones. An id without a token has a name."""

import copy

import pytest

from splade_integrations import UnsupportedModelError
from splade_integrations.encoding.tokenizer import TextTokenizer, token_names

TEXTS = ["Alan Turing, London!", "", "a b c d e f g h i j k l m n o p", "UPPER lower", "日本 ab 語 日本語日本語日本語"]


class Python:
    """A fast tokenizer that looks like a slow one."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        for name in ("cls", "sep", "bos", "eos", "unk"):
            setattr(self, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))

    def num_special_tokens_to_add(self):
        return self._tokenizer.num_special_tokens_to_add()

    def build_inputs_with_special_tokens(self, ids):
        return [self._tokenizer.cls_token_id, *ids, self._tokenizer.sep_token_id]

    def __call__(self, text, **options):
        return self._tokenizer(text, **options)


@pytest.fixture(scope="module")
def tokenizer(random_encoder):
    return random_encoder.tokenizer


@pytest.mark.parametrize("max_windows", [1, 3])
@pytest.mark.parametrize("lower_case", [False, True])
def test_python_equals_fast(tokenizer, lower_case, max_windows):
    fast = TextTokenizer(tokenizer, 10, lower_case=lower_case)
    slow = TextTokenizer(Python(tokenizer), 10, lower_case=lower_case)
    assert slow(TEXTS, max_windows) == fast(TEXTS, max_windows)
    assert fast(TEXTS, max_windows).unknown_texts == 1


def test_an_unknown_token_that_ends_each_text_is_none(tokenizer):
    """GPT-2's tokenizer uses one token both as the unknown token and as the end of a text."""
    both = copy.deepcopy(tokenizer)
    both.eos_token = both.unk_token
    assert TextTokenizer(tokenizer, 10)(["日本"]).unknown_texts == 1
    assert TextTokenizer(both, 10)(["日本"]).unknown_texts == 0


def test_a_column_without_a_token_has_a_name(tokenizer):
    assert token_names(tokenizer, [5, 10_000]) == [tokenizer.convert_ids_to_tokens(5), "[unused10000]"]


class PanicException(BaseException):  # this is the name of PyO3's class, which cannot be imported
    pass


class Broken:
    """A fast tokenizer that loads, and then fails."""

    is_fast, truncation_side = True, "right"
    unk_token = unk_token_id = cls_token_id = sep_token_id = bos_token_id = eos_token_id = None

    def __init__(self, error, *, copies):
        self.backend_tokenizer, self.error, self.copies = self, error, copies

    def num_special_tokens_to_add(self):
        return 0

    def __deepcopy__(self, memo):
        if self.copies:
            return self
        raise self.error

    def no_padding(self):
        pass

    def enable_truncation(self, *args, **options):
        pass

    def encode(self, *args, **options):
        raise self.error

    encode_batch = encode_batch_fast = encode


@pytest.mark.parametrize("error", [Exception("Token `ab` out of vocabulary"), PanicException("Token `ab`")])
def test_a_tokenizer_that_cannot_be_copied_is_refused(error):
    """If two tokens of tokenizer.json have the same id, the file loads, but a copy lacks one of them."""
    with pytest.raises(UnsupportedModelError, match=r"must give each token an id of its own.*Token `ab`"):
        TextTokenizer(Broken(error, copies=False), 8)


def test_a_panic_is_an_error_that_can_be_caught():
    tokenizer = TextTokenizer(Broken(PanicException("out of range"), copies=True), 8)
    with pytest.raises(RuntimeError, match="a library written in Rust failed: out of range"):
        tokenizer(["a text"])
    with pytest.raises(RuntimeError, match="out of range"):
        tokenizer.offsets("a text")
    with pytest.raises(KeyboardInterrupt):
        TextTokenizer(Broken(KeyboardInterrupt(), copies=True), 8)(["a text"])

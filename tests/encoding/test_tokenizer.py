"""Slow tokenizers, which are written in Python, return the same ids as fast ones. An id without a token has a name."""

import copy

import pytest

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

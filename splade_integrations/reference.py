"""SPLADE in its simplest form: one text at a time, without padding or shortcuts.

`SpladeEncoder` computes the same rows several times faster than this module. tests/test_reference.py compares the rows
of both, for every dtype and backend, and for every implementation of the model's layers and of its masked-LM head.
`SpladeEncoder` also offers windows for long documents, pruning and inference-free queries, which this module leaves
out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

__all__ = ["encode"]


def encode(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int = 512,
    prompt: str = "",
    pooling_strategy: str = "max",
    activation_function: str = "relu",
) -> csr_array:
    """Encode texts as SPLADE sparse embeddings.

    weight[v] = max (or sum) over the tokens t of log(1 + relu(logits[t, v])). This weight says how strongly the masked
    LM expects the term v anywhere in the text.

    Args:
        model: A masked LM of transformers, in evaluation mode, on a CPU.
        tokenizer: The model's tokenizer.
        texts: N texts.
        max_length: The largest number of tokens of a text, special tokens included. Longer texts are cut.
        prompt: A string to put before each text.
        pooling_strategy: "max" (SPLADE v2 and later) or "sum" (SPLADE v1).
        activation_function: "relu", or "log1p_relu" for log(1 + log(1 + relu(x))), as in OpenSearch v3.
    Returns:
        Term weights, 0 or more, on a natural log scale. (N, V) float32.
    Source:
        Formal et al., SPLADE v2, arXiv:2109.10086; v1, arXiv:2107.05720; "log1p_relu", arXiv:2504.14839.

    Example:
        >>> from transformers import AutoModelForMaskedLM, AutoTokenizer
        >>> model, tokenizer = (kind.from_pretrained(model_folder) for kind in (AutoModelForMaskedLM, AutoTokenizer))
        >>> row = encode(model.eval(), tokenizer, ["Alan Turing was born in London."])
        >>> tokenizer.convert_ids_to_tokens(row.toarray()[0].argsort()[::-1][:4].tolist())
        ['born', 'alan', 'turing', 'london']
    """
    rows = []
    for text in texts:
        inputs = tokenizer(prompt + text, truncation=True, max_length=max_length, return_tensors="pt")
        logits = model(**inputs).logits[0].detach().float().numpy()  # (L, V): a score for each term at each token
        weights = np.log1p(np.maximum(logits, 0))  # negative scores become 0, and the logarithm damps large scores
        if activation_function == "log1p_relu":
            weights = np.log1p(weights)
        pooled = weights.max(axis=0) if pooling_strategy == "max" else weights.sum(axis=0)  # (V,)
        rows.append(pooled)
    return csr_array(np.stack(rows))

"""What a SPLADE model is, in words: how its documents and its queries become term weights.

`checkpoints.py` reads it from a repository, `loading.py` loads what it names. Knows neither files, torch nor texts.
"""

from dataclasses import dataclass, replace
from typing import Literal, cast

from splade_integrations.models.repository import Repository

__all__ = [
    "ACTIVATION_FUNCTIONS",
    "POOLING_STRATEGIES",
    "ActivationFunction",
    "MaskedLM",
    "ModelDescription",
    "PoolingStrategy",
    "Side",
    "SpecialTerms",
    "TokenWeights",
    "override",
]

PoolingStrategy = Literal["max", "sum"]
ActivationFunction = Literal["relu", "log1p_relu"]
SpecialTerms = Literal["keep", "drop"]

POOLING_STRATEGIES = ("max", "sum")
ACTIVATION_FUNCTIONS = ("relu", "log1p_relu")


@dataclass(frozen=True)
class MaskedLM:
    """A transformer with a masked-LM head, and how its logits become term weights.

    Args:
        repository: Where its files lie.
        folder: Folder within the repository; "" is its root.
        pooling_strategy: Over the tokens of a text.
        activation_function: "relu": log(1 + relu(x)). "log1p_relu": log(1 + log(1 + relu(x))), as OpenSearch v3.
        max_length: Most tokens that the repository states, or None.
        lower_case: Whether texts are made lower case before they are tokenised.
    """

    repository: Repository
    folder: str = ""
    pooling_strategy: PoolingStrategy = "max"
    activation_function: ActivationFunction = "relu"
    max_length: int | None = None
    lower_case: bool = False


@dataclass(frozen=True)
class TokenWeights:
    """One fixed weight per token of the vocabulary: what an inference-free query is made of.

    Args:
        repository: Where its files lie.
        folder: Folder of the tokenizer; "" is the repository's root.
        file: The weights: safetensors with the key "weight", JSON of token to weight, or lines of token, tab, weight.
            None is the weight 1 for each: a binary bag of words.
    """

    repository: Repository
    folder: str = ""
    file: str | None = None


@dataclass(frozen=True)
class Side:
    """How documents, or queries, become term weights: by a transformer, by fixed weights, or by the product of both.

    Args:
        masked_lm: The transformer; None makes the side inference-free.
        token_weights: The fixed weights of the tokens that a text has; None takes the transformer's alone.
        prompt: Put before each text.
    """

    masked_lm: MaskedLM | None = None
    token_weights: TokenWeights | None = None
    prompt: str = ""

    def __str__(self) -> str:
        if self.masked_lm is None:
            kind = "inference-free, token weights from " + self._weights_file()
        else:
            activation = {"relu": "log(1 + relu)", "log1p_relu": "log(1 + log(1 + relu))"}
            kind = f"masked LM, {self.masked_lm.pooling_strategy} of {activation[self.masked_lm.activation_function]}"
            if self.token_weights is not None:
                kind += f", own tokens only, times {self._weights_file()}"
        return kind + (f", prompt {self.prompt!r}" if self.prompt else "")

    def _weights_file(self) -> str:
        weights = cast(TokenWeights, self.token_weights)
        return "1 each" if weights.file is None else f"{weights.repository.name}/{weights.file}"


@dataclass(frozen=True)
class ModelDescription:
    """What a repository is, before any weight of it is loaded.

    Args:
        document: The document side.
        query: The query side; equal to the document side but for the prompt in a symmetric model.
        max_active_dims: Most terms of a text that the repository states, or None.
        special_terms: Whether terms of special tokens such as [SEP] keep their weights.
    """

    document: Side
    query: Side
    max_active_dims: int | None = None
    special_terms: SpecialTerms = "keep"


def override(
    description: ModelDescription,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    pooling_strategy: PoolingStrategy | None = None,
    activation_function: ActivationFunction | None = None,
    special_terms: SpecialTerms | None = None,
) -> ModelDescription:
    """`description` with what the user says in place of what the repository says. None leaves it.

    Raises:
        ValueError: A value is unknown.
    """
    for name, value, allowed in (
        ("pooling_strategy", pooling_strategy, POOLING_STRATEGIES),
        ("activation_function", activation_function, ACTIVATION_FUNCTIONS),
        ("special_terms", special_terms, ("keep", "drop")),
    ):
        if value is not None and value not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, got {value!r}. Use None for the model's own.")

    def overridden(side: Side, prompt: str | None) -> Side:
        if side.masked_lm is not None:
            side = replace(
                side,
                masked_lm=replace(
                    side.masked_lm,
                    pooling_strategy=pooling_strategy or side.masked_lm.pooling_strategy,
                    activation_function=activation_function or side.masked_lm.activation_function,
                ),
            )
        return side if prompt is None else replace(side, prompt=prompt)

    return replace(
        description,
        document=overridden(description.document, document_prompt),
        query=overridden(description.query, query_prompt),
        special_terms=special_terms or description.special_terms,
    )

"""The spec of a SPLADE model: how documents and queries become term weights.

`layouts.py` reads the spec from a repository, and `encoding/roles.py` loads the files that the spec names.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, cast

from splade_integrations.models.repository import Repository
from splade_integrations.pruning import Pruning

__all__ = [
    "ACTIVATION_FUNCTIONS",
    "POOLING_STRATEGIES",
    "ActivationFunction",
    "Attention",
    "Head",
    "ModelSpec",
    "PoolingStrategy",
    "RoleSpec",
    "SpecialTerms",
    "TokenWeightsSpec",
    "TransformerSpec",
    "override",
]

PoolingStrategy = Literal["max", "sum"]
ActivationFunction = Literal["relu", "log1p_relu"]
SpecialTerms = Literal["keep", "drop"]
Head = Literal["masked LM", "language model", "token weights"]
Attention = Literal["bidirectional", "causal"]

POOLING_STRATEGIES = ("max", "sum")
ACTIVATION_FUNCTIONS = ("relu", "log1p_relu")


@dataclass(frozen=True)
class TransformerSpec:
    """A transformer with its head, and how the head's output becomes term weights.

    Args:
        repository: The repository that holds the transformer's files.
        folder: The folder within the repository. "" is its root.
        head: The kind of head. The logits of a "masked LM" or a "language model" (a decoder such as Qwen3) score every
            term at each token. With "token weights", as in BGE-M3, a linear layer and relu give each token one weight.
            A text's terms are then only its own tokens.
        attention: In a language model, whether a token attends to all tokens ("bidirectional") or only to earlier ones
            ("causal"). None for other heads.
        pooling_strategy: How the weights at a text's tokens are pooled into one weight per term.
        activation_function: How a logit x becomes a weight. "relu" stands for log(1 + relu(x)), and "log1p_relu" stands
            for log(1 + log(1 + relu(x))), as in OpenSearch v3.
        max_length: The repository's limit on the number of tokens of a text, or None if it states no limit.
        lower_case: Whether to lowercase texts before they are tokenised.
    """

    repository: Repository
    folder: str = ""
    head: Head = "masked LM"
    attention: Attention | None = None
    pooling_strategy: PoolingStrategy = "max"
    activation_function: ActivationFunction = "relu"
    max_length: int | None = None
    lower_case: bool = False


@dataclass(frozen=True)
class TokenWeightsSpec:
    """One fixed weight per token of the vocabulary. The rows of inference-free queries consist of these weights.

    Args:
        repository: The repository that holds the files.
        folder: The folder of the tokenizer. "" is the repository's root.
        file: The file of the weights. It is a safetensors or PyTorch file with the key "weight", a JSON file that maps
            tokens to weights, or a text file with a token, a tab and a weight in each line. None means that each token
            weighs 1, so a query becomes a binary bag of words.
        lower_case: Whether to lowercase texts before they are tokenised.
    """

    repository: Repository
    folder: str = ""
    file: str | None = None
    lower_case: bool = False


@dataclass(frozen=True)
class RoleSpec:
    """How the texts of one role, documents or queries, become term weights.

    The weights come from a transformer or from fixed token weights, or are the product of both.

    Args:
        transformer: The transformer. None means that the role is inference-free: only fixed token weights are used.
        token_weights: The fixed weights of a text's own tokens. None means that only the transformer is used.
        prompt: The string that is put before each text.
    """

    transformer: TransformerSpec | None = None
    token_weights: TokenWeightsSpec | None = None
    prompt: str = ""

    def __str__(self) -> str:
        if self.transformer is None:
            kind = "inference-free, token weights from " + self._weights_file()
        elif self.transformer.head == "token weights":
            kind = "token weights, max of relu over equal tokens"
        else:
            activation = {"relu": "log(1 + relu)", "log1p_relu": "log(1 + log(1 + relu))"}
            attention = f" with {self.transformer.attention} attention" if self.transformer.attention else ""
            pooling = self.transformer.pooling_strategy
            kind = (
                f"{self.transformer.head}{attention}, {pooling} of {activation[self.transformer.activation_function]}"
            )
            if self.token_weights is not None:
                kind += f", own tokens only, times {self._weights_file()}"
        if self.lower_case:
            kind += ", texts lowercased"
        return kind + (f", prompt {self.prompt!r}" if self.prompt else "")

    @property
    def lower_case(self) -> bool:
        """Whether texts are lowercased before they are tokenised."""
        return any(part is not None and part.lower_case for part in (self.transformer, self.token_weights))

    def _weights_file(self) -> str:
        weights = cast(TokenWeightsSpec, self.token_weights)
        return "1 each" if weights.file is None else f"{weights.repository.name}/{weights.file}"


@dataclass(frozen=True)
class ModelSpec:
    """The spec of a model, read from its repository before any weights are loaded.

    Args:
        document: How documents become term weights.
        query: How queries become term weights. In a symmetric model, it equals `document`, except for the prompt.
        document_pruning: Which terms of a document the model's authors keep.
        query_pruning: Which terms of a query the model's authors keep.
        special_terms: Whether to "keep" or "drop" the weights of special tokens such as [SEP].
    """

    document: RoleSpec
    query: RoleSpec
    document_pruning: Pruning = field(default_factory=Pruning)
    query_pruning: Pruning = field(default_factory=Pruning)
    special_terms: SpecialTerms = "keep"


def override(
    spec: ModelSpec,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    pooling_strategy: PoolingStrategy | None = None,
    activation_function: ActivationFunction | None = None,
    special_terms: SpecialTerms | None = None,
    lower_case: bool | None = None,
) -> ModelSpec:
    """Replace values of the spec with values that the user gives. None keeps the repository's value.

    Raises:
        ValueError: A value is unknown, or the model has no such setting.
    """
    for name, value, allowed in (
        ("pooling_strategy", pooling_strategy, POOLING_STRATEGIES),
        ("activation_function", activation_function, ACTIVATION_FUNCTIONS),
        ("special_terms", special_terms, ("keep", "drop")),
    ):
        if value is not None and value not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, got {value!r}. Use None for the model's value.")
    heads = {role.transformer.head for role in (spec.document, spec.query) if role.transformer is not None}
    if "token weights" in heads and (pooling_strategy == "sum" or activation_function is not None):
        raise ValueError(
            "pooling_strategy and activation_function must be None for a model of token weights, got "
            f"{pooling_strategy!r} and {activation_function!r}. Such a model always takes the maximum of relu over "
            "equal tokens. Leave both out, or use a SPLADE model."
        )

    def overridden(role: RoleSpec, prompt: str | None) -> RoleSpec:
        transformer, token_weights = role.transformer, role.token_weights
        if transformer is not None:
            transformer = replace(
                transformer,
                pooling_strategy=pooling_strategy or transformer.pooling_strategy,
                activation_function=activation_function or transformer.activation_function,
                lower_case=transformer.lower_case if lower_case is None else lower_case,
            )
        if token_weights is not None and lower_case is not None:
            token_weights = replace(token_weights, lower_case=lower_case)
        return RoleSpec(transformer, token_weights, role.prompt if prompt is None else prompt)

    return replace(
        spec,
        document=overridden(spec.document, document_prompt),
        query=overridden(spec.query, query_prompt),
        special_terms=special_terms or spec.special_terms,
    )

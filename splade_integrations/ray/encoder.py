"""An encoder that divides texts among actors (processes of Ray). It can be used in place of any other encoder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool
from scipy.sparse import csr_array, vstack

from splade_integrations.encoding.texts import check_texts
from splade_integrations.models.fingerprint import Fingerprint
from splade_integrations.options import EncoderOptions
from splade_integrations.ray.local import on_this_machine

if TYPE_CHECKING:
    from splade_integrations.encoder import SpladeEncoder

__all__ = ["RayEncoder"]

# If the process of an actor ends, Ray starts the actor again and repeats the call. The number of repeats is limited,
# because a text that kills every actor must end the run.
_MOST_RETRIES = 3


class RayEncoder:
    """Encodes texts in several actors of Ray. Each actor has its own copy of the model.

    Connect to Ray first, for example with `connected`. If the process of an actor is killed, Ray starts the
    actor again and repeats the call.

    Args:
        model_name: The folder of a SPLADE model, or its name on the hub. Each node of the cluster must reach it.
        actors: The number of actors. On CPUs, use one for each core: an actor computes in one thread.
        rows_per_batch: The largest number of texts that an actor gets at once.
        num_cpus: The number of CPUs that Ray reserves for an actor. Without a GPU, the default is 0.4, as in
            `encode_dataset`.
        num_gpus: The number of GPUs that Ray reserves for an actor, such as 1 or 0.5.
        **options: Options of `SpladeEncoder`, such as `dtype` and `max_length`.
    Raises:
        ValueError: `actors` or `rows_per_batch` is below 1. Or Ray runs only on this machine, and the machine has
            too few CPUs or GPUs for the actors.
        OSError: The process of an actor ends again and again.
        UnsupportedModelError: `SpladeEncoder` refuses the model. All other errors of `SpladeEncoder` are raised, too.

    Example:
        >>> from splade_integrations.ray import RayEncoder, connected
        >>> with connected(num_cpus=2, object_store_bytes=100 * 1024**2):
        ...     encoder = RayEncoder(model_folder, actors=2)
        ...     encoder.encode_documents(["A cat purrs.", "A dog barks."]).shape
        (2, 30522)
    """

    def __init__(
        self,
        model_name: str,
        *,
        actors: int = 1,
        rows_per_batch: int = 512,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        **options: Unpack[EncoderOptions],
    ) -> None:
        for name, value in (("actors", actors), ("rows_per_batch", rows_per_batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}. Use 1 or more.")
        if Path(model_name).is_dir():  # the path must be absolute, because Ray's workers may run in other folders
            model_name = str(Path(model_name).resolve())
        reserved = {"num_cpus": (0 if num_gpus else 0.4) if num_cpus is None else num_cpus, "num_gpus": num_gpus or 0}
        _check_fits(actors, reserved)
        made: Any = ray.remote(max_restarts=-1, max_task_retries=_MOST_RETRIES, **reserved)(_Model)
        self._actors = [made.remote(model_name, options) for _ in range(actors)]
        self._rows_per_batch = rows_per_batch
        with _own_errors():
            self.fingerprint: Fingerprint = ray.get([actor.fingerprint.remote() for actor in self._actors])[0]

    def encode_documents(self, texts: Sequence[str]) -> csr_array:
        """Encode documents. Returns a matrix (len(texts), vocabulary size), in the order of the texts."""
        return self._encode("encode_documents", texts)

    def encode_queries(self, texts: Sequence[str]) -> csr_array:
        """Encode queries. Returns a matrix (len(texts), vocabulary size), in the order of the texts."""
        return self._encode("encode_queries", texts)

    def _encode(self, method: str, texts: Sequence[str]) -> csr_array:
        texts = check_texts(texts)
        # There are two batches for each actor, so that an actor that finishes early can take a further batch.
        size = max(1, min(self._rows_per_batch, -(-len(texts) // (2 * len(self._actors)))))
        batches = [texts[start : start + size] for start in range(0, len(texts), size)] or [[]]
        pool = ActorPool(self._actors)  # a new pool, because an old pool keeps the batches of a failed call
        with _own_errors():
            found = list(pool.map(lambda actor, batch: getattr(actor, method).remote(batch), batches))
        return csr_array(vstack(found, format="csr"))


def _check_fits(actors: int, reserved: Mapping[str, float]) -> None:
    """Raise ValueError if this machine has too few CPUs or GPUs, because Ray would then wait for ever.

    A cluster is not checked, because it may grow.
    """
    if not on_this_machine():
        return
    there = ray.cluster_resources()
    for option, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        wanted, found = actors * reserved[option], there.get(resource, 0)
        if wanted > found + 1e-6:  # rounding makes 30 times 0.1 a little more than 3
            raise ValueError(
                f"{actors} actors must fit on this machine, but they reserve {wanted:g} {resource}s and it has "
                f"{found:g}. Use fewer actors (--encoders), or a smaller {option}."
            )


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise an actor's own error in place of the error of Ray that wraps it.

    If the process of an actor ends again and again, raise an OSError.
    """
    try:
        yield
    except RayTaskError as err:
        raise err.cause from err
    except RayActorError as err:
        raise OSError(
            f"each actor of Ray must answer, got an actor whose process ended {_MOST_RETRIES + 1} times with the same "
            "texts. Give the actors more memory, use fewer actors, or lower rows_per_batch."
        ) from err


class _Model:
    """An actor with one copy of the model."""

    def __init__(self, model_name: str, options: EncoderOptions) -> None:
        self._model_name, self._options = model_name, options

    # The model is loaded in this property, because an error in __init__ would reach the caller only as the text of a
    # traceback.
    @cached_property
    def _encoder(self) -> "SpladeEncoder":
        from splade_integrations.encoder import SpladeEncoder

        return SpladeEncoder(self._model_name, **self._options)

    def fingerprint(self) -> Fingerprint:
        return self._encoder.fingerprint

    def encode_documents(self, texts: list[str]) -> csr_array:
        return self._encoder.encode_documents(texts)

    def encode_queries(self, texts: list[str]) -> csr_array:
        return self._encoder.encode_queries(texts)

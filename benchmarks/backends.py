"""Run sentence-transformers' ONNX and OpenVINO backends on a local checkpoint, which this module exports.

sentence-transformers loads both backends through optimum. But optimum needs old releases of transformers: optimum-onnx
0.1.0 needs a release below 4.58, and optimum-intel 2.2.0 needs one below 5.6. optimum passes the model's inputs to a
runtime (ONNX Runtime or OpenVINO), and returns the logits. The two classes in this module do the same without optimum,
and set up the runtimes as optimum does. Everything else is sentence-transformers' own code: tokenising, batching,
pooling and the conversion to sparse rows.
"""

import hashlib
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.modeling_outputs import MaskedLMOutput

from benchmarks.workload import CACHE

__all__ = ["OnnxModel", "OpenVinoModel", "exported_onnx"]

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Logits(nn.Module):
    """A masked LM that accepts positional inputs and returns a tensor, as the exporter requires."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        inputs = dict(zip(_INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
        logits: Tensor = self.model(**inputs).logits
        return logits


def exported_onnx(folder: str, *, fused: bool = False, int8: bool = False) -> Path:
    """Return the ONNX file of a BERT-like checkpoint. The file is made once and then reused.

    Args:
        folder: The checkpoint.
        fused: Whether attention, embeddings and normalisations are fused into one operator each. ONNX Runtime's
            optimiser inserts these operators, as in sentence-transformers' `export_optimized_onnx_model`.
        int8: Whether to quantise, with the settings of sentence-transformers' `export_dynamic_quantized_onnx_model` for
            this processor. Weights have one scale per output channel. They are signed for processors with AVX-512 VNNI,
            and unsigned for processors with AVX2 alone: AVX2 adds products in pairs, and with signed weights these sums
            would overflow. Activations have one scale per batch, computed at run time.
    Returns:
        `model.onnx` in a folder below `CACHE` that also holds the tokenizer and the configuration.
    """
    weights = next(Path(folder).glob("*.safetensors"), Path(folder))
    key = hashlib.sha256(f"{Path(folder).resolve()} {weights.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    vnni = torch.cpu._is_vnni_supported()
    kind = "onnx" + "-fused" * fused + ("-int8" + "-avx2" * (not vnni)) * int8
    target = CACHE / kind / key / "model.onnx"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name("unfinished.onnx")
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser logs advice to the root logger
    if int8:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # ONNX's shape inference does not know which number type fused operators return, so this option tells the
        # quantiser.
        types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        source = exported_onnx(folder, fused=fused)
        weight_type = QuantType.QInt8 if vnni else QuantType.QUInt8
        quantize_dynamic(source, unfinished, per_channel=True, weight_type=weight_type, extra_options=types)
    elif fused:
        from onnxruntime.transformers.optimizer import optimize_model

        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        sizes = {"num_heads": config["num_attention_heads"], "hidden_size": config["hidden_size"]}
        optimize_model(str(exported_onnx(folder)), "bert", **sizes).save_model_to_file(str(unfinished))
    else:
        _export(folder, unfinished)
    unfinished.rename(target)
    return target


def _export(folder: str, target: Path) -> None:
    import onnx  # noqa: F401  # fails here if onnx is missing, with a shorter message than torch's exporter

    model: Any = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.config.save_pretrained(target.parent)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target.parent)
    ids = torch.ones(2, 8, dtype=torch.long)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the warnings are about the exporter, which is deprecated
        torch.onnx.export(
            _Logits(model.eval()),
            (ids, ids, torch.zeros_like(ids)),
            str(target),
            input_names=list(_INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in (*_INPUTS, "logits")},
            opset_version=17,
            dynamo=False,
        )


class OnnxModel(nn.Module):
    """Takes the place of a transformers model in sentence-transformers, and computes with ONNX Runtime.

    Args:
        file: An exported masked LM.
        config: The transformers configuration.
        threads: Number of threads. None uses as many as torch.
    """

    def __init__(self, file: Path, config: Any, threads: int | None) -> None:
        super().__init__()
        import onnxruntime

        self.config = config
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or torch.get_num_threads()
        settings.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **_: Any
    ) -> MaskedLMOutput:
        """Return the logits (B, L, V) of one batch."""
        (logits,) = self._session.run(None, _arrays(input_ids, attention_mask, token_type_ids))
        return MaskedLMOutput(logits=torch.from_numpy(logits))


class OpenVinoModel(nn.Module):
    """Takes the place of a transformers model in sentence-transformers, and computes with OpenVINO.

    Args:
        file: An exported masked LM.
        config: The transformers configuration.
        threads: Number of threads. None uses as many as torch.
        precision: "f32", or None for OpenVINO's own choice, which is bf16 if the processor supports it.
    """

    def __init__(self, file: Path, config: Any, threads: int | None, precision: str | None = None) -> None:
        super().__init__()
        import openvino

        self.config = config
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",  # one request at a time, with all threads
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        }
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        self._compiled = openvino.Core().compile_model(str(file), "CPU", settings)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **_: Any
    ) -> MaskedLMOutput:
        """Return the logits (B, L, V) of one batch."""
        results = self._compiled(_arrays(input_ids, attention_mask, token_type_ids))
        return MaskedLMOutput(logits=torch.from_numpy(results["logits"]))


def _arrays(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> dict[str, Any]:
    if token_type_ids is None:
        token_type_ids = torch.zeros_like(input_ids)
    tensors = (input_ids, attention_mask, token_type_ids)
    return {name: tensor.numpy() for name, tensor in zip(_INPUTS, tensors, strict=True)}

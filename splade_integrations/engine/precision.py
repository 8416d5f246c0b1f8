"""float32 that is float32: shields our arithmetic from what the process has switched on.

`torch.autocast` would run our products in 16 bits; process-wide settings let a backend replace float32 products by
bfloat16 or TF32 ones, and add 16-bit products up in 16 bits. All belong to the caller, so all are found again as they
were. Knows torch only.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

__all__ = ["exact_float32"]


class _Setting(NamedTuple):
    """A setting of the process, and what makes it exact."""

    owner: Any
    name: str
    exact: Any

    def read(self) -> Any:
        return getattr(self.owner, self.name)

    def write(self, value: Any) -> None:
        setattr(self.owner, self.name, value)


_cuda, _onednn = torch.backends.cuda.matmul, torch.backends.mkldnn
# By type of device; another has none. getattr: torch's own annotations do not know all.
_SETTINGS: dict[str, tuple[_Setting, ...]] = {
    "cpu": tuple(_Setting(getattr(_onednn, part), "fp32_precision", "ieee") for part in ("matmul", "conv")),
    "cuda": (
        _Setting(_cuda, "fp32_precision", "ieee"),
        _Setting(_cuda, "allow_bf16_reduced_precision_reduction", False),
        _Setting(_cuda, "allow_fp16_reduced_precision_reduction", False),
        _Setting(_cuda, "allow_fp16_accumulation", False),
    ),
}
_lock = threading.Lock()
_users: dict[str, int] = dict.fromkeys(_SETTINGS, 0)
_found: dict[str, list[tuple[_Setting, Any]]] = {device: [] for device in _SETTINGS}  # with the value that each had


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Run the block without autograd and autocast, with float32 products in float32 and 16-bit ones added up in it.

    The settings are the process's, so their users are counted: the first of several threads saves and sets them, the
    last one puts them back. On a CPU a process that left them at their defaults (the usual case) sees no write at all.
    Three limits: a precision that the backend inherits, set by torch.backends.fp32_precision, is put back as its own.
    Where set_float32_matmul_precision was called, torch may raise for a thread that reads the older
    torch.backends.cuda.matmul.allow_tf32 meanwhile. And cuDNN's convolutions, which ConvBERT and SqueezeBERT have, stay
    TF32 on CUDA, torch's default: were theirs set, the same would befall readers of torch.backends.cudnn.allow_tf32.
    """
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        _acquire(device.type)
        try:
            yield
        finally:
            _release(device.type)


def _acquire(device: str) -> None:
    if device not in _SETTINGS:
        return
    with _lock:
        for setting in () if _users[device] else _SETTINGS[device]:
            value = setting.read()
            if value not in (setting.exact, "none"):
                _found[device].append((setting, value))
                setting.write(setting.exact)
        _users[device] += 1  # last: what raised above has no user


def _release(device: str) -> None:
    if device not in _SETTINGS:
        return
    with _lock:
        _users[device] -= 1
        if _users[device] == 0:
            while _found[device]:
                setting, value = _found[device].pop()
                if setting.read() == setting.exact:  # else another thread has set it meanwhile
                    setting.write(value)

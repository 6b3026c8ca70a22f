"""``model.safetensors``: a model's arrays in one file, named by its SHA-256. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import SnapshotError

__all__ = ["MODEL_FILE", "damaged", "read_model_tensors", "tensor_bytes"]

MODEL_FILE: Final = "model.safetensors"

MAX_TENSOR_BYTES: Final = 8 * 2**30
"""Far above the largest model of the project (130 M parameters and two moments); a larger file is not one of ours."""


def tensor_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The file's content; the same arrays give the same bytes."""
    content: bytes = save_tensors({name: np.ascontiguousarray(values) for name, values in tensors.items()})
    return content


def damaged(folder: Path, found: str) -> SnapshotError:
    """The error for a stored model that cannot be used."""
    return SnapshotError(
        expected=f"a complete model at {folder}",
        found=found,
        remedy="Use another one, or start its training again: a run resumes after the last complete round.",
    )


def read_model_tensors(folder: Path, digest: str) -> dict[str, NDArray[Any]]:
    """Read ``model.safetensors`` of a folder.

    Args:
        folder: where it lies.
        digest: its SHA-256.

    Returns:
        Arrays by name; ``model`` is there, a vector of finite float32 parameters [P].

    Raises:
        SnapshotError: if it is missing, damaged, or another one.
    """
    path = folder / MODEL_FILE
    try:
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise damaged(folder, "a model file larger than any of ours")
        content = path.read_bytes()
    except OSError as error:
        raise damaged(folder, f"{MODEL_FILE}: {error.strerror}") from None
    if sha256_hex(content) != digest:
        raise damaged(folder, f"{MODEL_FILE} with SHA-256 {sha256_hex(content)[:16]}... in place of {digest[:16]}...")
    try:
        tensors: dict[str, NDArray[Any]] = load_tensors(content)
    except (SafetensorError, ValueError) as error:
        raise damaged(folder, f"{MODEL_FILE}: {error}") from None
    model = tensors.get("model")
    if model is None or model.dtype != np.float32 or model.ndim != 1 or not np.all(np.isfinite(model)):
        raise damaged(folder, "no vector of finite parameters")
    return tensors

"""Float32 that is float32, on GPUs too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["full_precision"]


@contextmanager
def full_precision() -> Iterator[None]:
    """Within (or as a decorator): convolutions do not round float32 to TF32's 11 bits, nor sums of bfloat16 products.

    cuDNN does the first by default, cuBLAS may do the second when it adds up in pieces. A patient's numbers would then
    differ in the fourth digit with the size of the batch. The settings are the process's, for all of its threads.
    """
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_bf16_reduced_precision_reduction
    try:
        cudnn.allow_tf32, cublas.allow_bf16_reduced_precision_reduction = False, False
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_bf16_reduced_precision_reduction = before

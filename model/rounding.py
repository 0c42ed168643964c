"""Weights in fewer bits: rounding that is right on average, and the share of a training's change that survives it.

A step of bfloat16 at a weight of 0.02 is 1.2e-4; a preference stage at a rate of 5e-7 moves weights by a tenth of that.
Rounding to the nearest value drops every change below half a step; rounding up or down at random keeps their sum.
"""

import math
import zlib

import torch
from torch import Tensor

BLOCK = 1 << 22  # values at a time, so that temporaries stay small beside an embedding


def round_stochastically(values: Tensor, dtype: torch.dtype, key: str) -> Tensor:
    """Round float32 values to one of their two neighbours in `dtype`, so that the mean is the value itself.

    key: names the random numbers; the same key and values give the same bits. dtype: bfloat16 or float16. What it holds
    exactly stays as it is; what is too large for it becomes infinite. values, and the result, lie on the CPU.
    """
    info = torch.finfo(dtype)
    dropped = 23 + round(math.log2(info.eps))  # bits of float32's fraction that dtype has not
    numbers = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    rounded = torch.empty(values.shape, dtype=dtype)
    for x, target in zip(values.reshape(-1).split(BLOCK), rounded.view(-1).split(BLOCK), strict=True):
        # below float16's smallest normal value its steps no longer shrink: they are those just above it
        shift = torch.zeros(())
        if dtype == torch.float16:
            shift = torch.full_like(x, info.smallest_normal).copysign_(x).where(x.abs() < info.smallest_normal, shift)
        # a random number added to the bits that go carries into those that stay as often as it should
        bits = (x + shift).view(torch.int32)
        bits += torch.randint(1 << dropped, x.shape, generator=numbers, dtype=torch.int32)
        target.copy_(bits.bitwise_and_(-(1 << dropped)).view(torch.float32) - shift)
    return rounded


class Kept:
    """How much of the change since the start the saved weights hold, by tensor and over all of them.

    The share is the projection of the saved change on the trained one, <s − w₀, w − w₀> / |w − w₀|², for start w₀,
    trained w and saved s: 1 for w itself, 0 if saving undid the training, near 1 for rounding that is right on average.
    """

    def __init__(self):
        self.sums = {}  # tensor's name -> (<s − w₀, w − w₀>, |w − w₀|², number of weights)

    def add(self, name: str, start: Tensor, trained: Tensor, saved: Tensor) -> None:
        """Take up a tensor. start, saved: any dtype; trained: float32."""
        along = square = 0.0
        for w0, w, s in zip(*(t.reshape(-1).split(BLOCK) for t in (start, trained, saved)), strict=True):
            w0 = w0.float()
            change = w - w0
            along += ((s.float() - w0) @ change).item()
            square += (change @ change).item()
        self.sums[name] = along, square, start.numel()

    def summary(self) -> dict:
        """Return {"kept": share, "least_kept": [tensor, its share], "rms_change": of a weight}; shares are None where
        nothing was compared, or nothing has changed."""
        along, square, count = (sum(column) for column in zip((0.0, 0.0, 0), *self.sums.values(), strict=True))
        shares = {name: a / sq for name, (a, sq, _) in self.sums.items() if sq}
        least = min(shares, key=shares.get, default=None)
        return {
            "kept": along / square if square else None,
            "least_kept": [least, shares[least]] if shares else None,
            "rms_change": math.sqrt(square / count) if count else None,
        }

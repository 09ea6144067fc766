"""Convolutions as matrix products, which a CPU does faster than its convolutions (docs/performance.md).

B samples · N positions in a row · C channels · S side of an image in pixels · T patches · D width
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve [B, N, C_in] with [C_out, C_in, kernel], channels last, as one matrix product per stride of taps.

    ``stride`` taps together read a view of ``x`` without a copy. Exported graphs hold conv1d.
    """
    if torch.compiler.is_exporting():
        return F.conv1d(x.transpose(1, 2), weight, stride=stride).transpose(1, 2)
    tokens = (x.shape[1] - weight.shape[2]) // stride + 1
    products = []
    for first in range(0, weight.shape[2], stride):
        taps = weight[:, :, first : first + stride]
        if taps.shape[2] == stride:
            windows = x[:, first : first + tokens * stride].reshape(len(x), tokens, -1)
            products.append(F.linear(windows, taps.transpose(1, 2).flatten(1)))
        else:
            ends = [first + tap + (tokens - 1) * stride + 1 for tap in range(taps.shape[2])]
            parts = [F.linear(x[:, first + i : end : stride], taps[:, :, i]) for i, end in enumerate(ends)]
            products.append(sum(parts[1:], parts[0]))
    return sum(products[1:], products[0])


def project_patches(images: Tensor, patches: nn.Conv2d) -> Tensor:
    """Return [B, T, D]: the convolution ``patches``, whose windows do not overlap, as one matrix product.

    On a CPU its backward pass is several times faster than that of conv2d.
    """
    side = patches.stride[0]
    windows = images.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
    return F.linear(windows.flatten(3).flatten(1, 2), patches.weight.flatten(1), patches.bias)

"""Convolutions as matrix products are convolutions."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d2v_core.model.convolutions import convolve, project_patches


@settings(max_examples=30)
@given(st.sampled_from([(10, 5), (3, 2), (2, 2), (5, 2), (4, 3), (3, 1)]), st.integers(20, 60), st.integers(1, 3))
def test_in_one_dimension(shape, samples, channels):
    kernel, stride = shape
    x, weight = torch.randn(2, samples, channels), torch.randn(5, channels, kernel)
    wanted = F.conv1d(x.transpose(1, 2), weight, stride=stride).transpose(1, 2)
    torch.testing.assert_close(convolve(x, weight, stride), wanted, atol=1e-4, rtol=1e-4)


@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_of_patches_row_by_row(patch, side, channels):
    images, patches = torch.randn(2, channels, patch * side, patch * side), nn.Conv2d(channels, 5, patch, patch)
    wanted = patches(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(project_patches(images, patches), wanted, atol=1e-5, rtol=1e-5)

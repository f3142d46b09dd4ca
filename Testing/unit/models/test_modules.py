"""Stopping in the midst of a network, and what it weighs."""

import pytest
import torch
from torch import nn

from FoundationSegLib.errors import Cancelled
from FoundationSegLib.models.weights import checked, weight_bytes


def test_the_check_comes_before_every_module_and_not_after():
    layers, calls = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), []

    def check():
        calls.append(1)
        if len(calls) == 5:
            raise Cancelled

    with checked(layers, check):
        layers(torch.zeros(2))
    assert len(calls) == 3
    with pytest.raises(Cancelled), checked(layers, check):
        layers(torch.zeros(2))
    layers(torch.zeros(2))
    assert len(calls) == 5


def test_parameters_and_buffers_are_weighed():
    assert weight_bytes(nn.Linear(2, 3), nn.BatchNorm1d(5)) == 4 * (2 * 3 + 3) + 4 * 4 * 5 + 8

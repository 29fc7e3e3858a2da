"""The device of a test."""

from collections.abc import Iterator

import pytest
import torch

from tests.devices import GPU


@pytest.fixture(params=['cpu', GPU])
def device(request) -> Iterator[torch.device]:
    """A device, on which fp32 means fp32: torch lets convolutions of a GPU use TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cudnn.allow_tf32 = before

"""The devices that a test runs on: a CPU always, a GPU where there is one (`make gpu-check` runs those alone)."""

import pytest
import torch

GPU = pytest.param(
    'cuda',
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')],
)

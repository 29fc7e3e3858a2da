"""One pretraining step in a process of its own, for its peak of memory: ``python -m`` this with arguments as JSON.

Memory that a process has had comes back to it faster than to the system, so that a second measurement in the same
process would find the first one's.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_STATUS = Path('/proc/self/status')
# glibc then gives what is freed back to the system at once, instead of keeping it resident for the next allocation: the
# peak is of what was in use.
_ALLOCATOR = {'MALLOC_MMAP_THRESHOLD_': str(1 << 18), 'MALLOC_TRIM_THRESHOLD_': str(1 << 18)}


def measure_in_process(**arguments: Any) -> dict[str, float]:
    """Run :func:`measure` in a fresh interpreter.

    Args:
        **arguments (Any): Those of :func:`measure`.

    Returns:
        dict[str, float]: What it returns.

    Raises:
        RuntimeError: The process failed; the message ends with the last lines of what it said.
    """
    command = [sys.executable, '-W', 'ignore', '-m', __name__, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | _ALLOCATOR)
    if done.returncode:
        raise RuntimeError(
            f'measuring {arguments} ended with status {done.returncode} (-9: the system ran out of memory): '
            f'{done.stderr.strip()[-600:]}'
        )
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    arch: dict[str, int],
    grid: tuple[int, int],
    patch_size: int = 14,
    mlp: str = 'gelu',
    batch_size: int = 8,
    dtype: str = 'fp32',
    variant: str = 'step',
    device: str = 'cpu',
    threads: int = 2,
    steps: int = 2,
) -> dict[str, float]:
    """Peak of memory of pretraining steps, and what was there before.

    Args:
        arch (dict[str, int]): As in ``NEPAViT``.
        grid (tuple[int, int]): Rows and columns of patches.
        patch_size (int): Side of a patch in pixels. Defaults to 14.
        mlp (str): As in ``NEPAViT``. Defaults to 'gelu'.
        batch_size (int): Images. Defaults to 8.
        dtype (str): 'fp32', or 'bf16' for autocast. Defaults to 'fp32'.
        variant (str): 'step', 'timm blocks' or 'with_cp'. Defaults to 'step'.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        threads (int): Of torch. Defaults to 2.
        steps (int): Steps; the first one's time counts as warm-up if there are more. Defaults to 2.

    Returns:
        dict[str, float]: ``peak``, ``before`` (interpreter, weights and gradients; on CUDA weights and gradients alone)
        and ``activations``, the difference, in bytes; ``seconds`` of the last step.
    """
    import time

    import torch

    from nepa_mm.models import NEPAViT

    from .step import DTYPES, training_step
    from .timm_blocks import predict_with_timm_blocks

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # Code and workspaces that a first step loads, whatever its size, are no activations.
    small = NEPAViT(arch=dict(embed_dims=32, num_layers=1, num_heads=1, feedforward_channels=64), mlp=mlp, causal=True)
    training_step(small.to(device), torch.randn(1, 3, 28, 28, device=device), DTYPES[dtype])()
    del small
    backbone = NEPAViT(arch=arch, patch_size=patch_size, mlp=mlp, causal=True, with_cp=variant == 'with_cp')
    backbone = backbone.to(device).train()
    images = torch.randn(batch_size, 3, *(side * patch_size for side in grid), device=device)
    predict = predict_with_timm_blocks if variant == 'timm blocks' else NEPAViT.predict_next
    for parameter in backbone.parameters():
        parameter.grad = torch.zeros_like(parameter).add_(0)  # written to, so that its pages are there
    before = _reset_peak(device)
    step = training_step(backbone, images, DTYPES[dtype], predict, keep_gradients=True)
    for _ in range(steps):
        start = time.perf_counter()
        step()
        if device == 'cuda':
            torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = _peak(device)
    return dict(peak=peak, before=before, activations=peak - before, seconds=seconds)


def _reset_peak(device: str) -> float:
    """Bytes in use now; the peak counts from here."""
    if device == 'cuda':
        import torch

        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    Path('/proc/self/clear_refs').write_text('5')  # Linux: the peak of resident memory starts again
    return _from_status('VmRSS')


def _peak(device: str) -> float:
    if device == 'cuda':
        import torch

        return float(torch.cuda.max_memory_allocated())
    return _from_status('VmHWM')


def _from_status(name: str) -> float:
    found = re.search(rf'^{name}:\s+(\d+) kB', _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f'{_STATUS} has no {name}; resident memory is measured on Linux alone.')
    return 1024.0 * int(found[1])


if __name__ == '__main__':
    print(json.dumps(measure(**json.loads(sys.argv[1]))))

"""TimmRandomErasing: timm's RandomErasing as a step of an mm pipeline."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from timm.data.random_erasing import RandomErasing

MODES = ('const', 'rand', 'pixel')


class _Record:
    """What timm takes for the image that it erases: keeps where and with what, and has no pixels.

    Args:
        shape: (C, H, W).
    """

    dtype = torch.float32

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.erased: list[tuple[tuple[slice, slice, slice], torch.Tensor]] = []

    def size(self) -> tuple[int, int, int]:
        return self.shape

    def __setitem__(self, where: tuple[slice, slice, slice], noise: torch.Tensor) -> None:
        self.erased.append((where, noise))


@TRANSFORMS.register_module()
class TimmRandomErasing(BaseTransform):
    """Random erasing that looks, once the data preprocessor has normalised it, as timm's after its normalisation.

    timm erases the normalised image, with noise from N(0, 1). mm normalises last, on the whole batch, so this step
    writes ``mean + std * noise`` into a float32 image: in uint8, as mmpretrain's ``RandomErasing`` keeps it, a third of
    that noise would be clipped. Random numbers come from Python's ``random`` (whether and where) and torch (the noise),
    both seeded in every worker by mmengine.

    Put it last, just before ``PackInputs``. Required keys: ``img`` (H, W, 3), BGR. Modified keys: ``img``, float32,
    also where nothing is erased, so that a batch can be stacked.

    Args:
        prob (float): Probability of erasing. Defaults to the release's 0.25.
        mode (str): Fill: 'pixel' noise per pixel and channel, 'rand' one random colour, 'const' the mean. Defaults to
            the release's 'pixel'.
        min_area (float): Smallest erased part of the area. Defaults to 0.02.
        max_area (float): Largest erased part of the area. Defaults to 1/3.
        min_aspect (float): Smallest aspect ratio; the largest is its inverse. Defaults to 0.3.
        max_count (int): Most boxes per image; they share the area. Defaults to 1.
        mean (Sequence[float]): The data preprocessor's mean, RGB in 0..255. Defaults to 127.5 each.
        std (Sequence[float]): The data preprocessor's standard deviation. Defaults to 127.5 each.

    Raises:
        ValueError: If a number is out of its range, the mode is unknown, or ``mean`` or ``std`` has not three entries.
    """

    def __init__(
        self,
        prob: float = 0.25,
        mode: str = 'pixel',
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_count: int = 1,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'mode={mode!r} is not known; choose from {list(MODES)}')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob} must lie in 0..1')
        if not 0 < min_area <= max_area <= 1:
            raise ValueError(
                f'min_area={min_area} and max_area={max_area} must be parts of the image, 0 < min <= max <= 1'
            )
        if not 0 < min_aspect <= 1:
            raise ValueError(f'min_aspect={min_aspect} must lie in 0..1 (its inverse is the largest aspect ratio)')
        if max_count < 1:
            raise ValueError(f'max_count={max_count} must be 1 or more')
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f'mean={mean} and std={std} must have three entries each, as in the data preprocessor')
        self.prob = prob
        self.mode = mode
        self.mean = np.asarray(mean, dtype=np.float32)
        self.std = np.asarray(std, dtype=np.float32)
        self.erase = RandomErasing(
            prob,
            min_area=min_area,
            max_area=max_area,
            min_aspect=min_aspect,
            mode=mode,
            max_count=max_count,
            device='cpu',
        )

    def transform(self, results: dict) -> dict:
        """Turn ``results['img']`` into float32 and erase a part of it."""
        image = results['img'].astype(np.float32)
        record = _Record((3, *image.shape[:2]))
        self.erase(record)
        for (_, rows, columns), noise in record.erased:
            values = noise.permute(1, 2, 0).numpy() * self.std + self.mean  # (h, w, 3), or (1, 1, 3) for one colour
            image[rows, columns] = values[..., ::-1]  # RGB to BGR
        results['img'] = image
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(prob={self.prob}, mode={self.mode!r}, mean={self.mean.tolist()}, '
            f'std={self.std.tolist()})'
        )

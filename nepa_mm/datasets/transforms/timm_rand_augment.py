"""TimmRandAugment: timm's RandAugment as a step of an mm pipeline."""

import re

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image
from timm.data.auto_augment import posterize, rand_augment_transform

from .channels import to_pixels, to_planes

SECTION = re.compile(r'(m|n|inc)\d+|mmax\d+|(p|mstd)\d+(\.\d+)?|mstdinf|t\w+')
INTERPOLATIONS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}


def posterize_to_black(image: Image.Image, bits_to_keep: int, **kwargs) -> Image.Image:
    """Posterize as timm does, also to no bits at all.

    The magnitude's deviation takes one image in 660 there. Pillow used to make it black; newer versions (seen with
    13.0) raise an error, which would end the training.
    """
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return posterize(image, bits_to_keep, **kwargs)


@TRANSFORMS.register_module()
class TimmRandAugment(BaseTransform):
    """RandAugment with timm's operations, on PIL images in RGB as the release runs it.

    mmpretrain's ``RandAugment(policies='timm_increasing')`` has the same operations, ranges and probabilities, but
    OpenCV's interpolation and arithmetic; see docs/augmentation.md. Random numbers come from Python's ``random`` and
    numpy, both seeded in every worker by mmengine.

    Required keys: ``img`` (H, W, 3), uint8, BGR as mmcv loads it. Modified keys: ``img``, same shape and
    type, a view of (3, H, W).

    Args:
        config_str (str): timm's description: ``rand``, then sections joined by dashes: ``m9`` magnitude of 10, ``n2``
            operations per image, ``p0.5`` probability of each, ``mstd0.5`` deviation of the magnitude, ``inc1``
            operations that grow with the magnitude. Defaults to the release's 'rand-m9-mstd0.5-inc1'.
        interpolation (str): 'bicubic' or 'bilinear', of the geometric operations. Defaults to 'bicubic'.
        fill_color (tuple[int, int, int]): RGB of what a geometric operation uncovers. Defaults to (128, 128, 128), the
            release's mean of .5 in 0..255.

    Raises:
        ValueError: If the description or the interpolation is not one of these, or the image is not uint8 with three
            channels.
    """

    def __init__(
        self,
        config_str: str = 'rand-m9-mstd0.5-inc1',
        interpolation: str = 'bicubic',
        fill_color: tuple[int, int, int] = (128, 128, 128),
    ) -> None:
        policy, *sections = config_str.split('-')
        wrong = [section for section in sections if not SECTION.fullmatch(section)]
        if policy != 'rand' or wrong:  # timm skips over a section it cannot read
            raise ValueError(
                f"config_str={config_str!r} is not a RandAugment of timm: expected e.g. 'rand-m9-mstd0.5-inc1'"
                + (f'; cannot read {", ".join(map(repr, wrong))}' if wrong else '')
            )
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f'interpolation={interpolation!r} is not known; choose from {list(INTERPOLATIONS)}')
        self.config_str = config_str
        self.interpolation = interpolation
        self.fill_color = tuple(fill_color)
        self.augment = rand_augment_transform(
            config_str, dict(img_mean=self.fill_color, interpolation=INTERPOLATIONS[interpolation])
        )
        for operation in self.augment.ops:
            if operation.aug_fn is posterize:
                operation.aug_fn = posterize_to_black

    def transform(self, results: dict) -> dict:
        """Augment ``results['img']``."""
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f'TimmRandAugment needs a uint8 image (H, W, 3), got {image.dtype} {image.shape}: put it before '
                'TimmRandomErasing and any other step that makes floats'
            )
        rgb = self.augment(Image.fromarray(to_pixels(image, reverse=True)))
        results['img'] = to_planes(np.asarray(rgb), reverse=True)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(config_str={self.config_str!r}, interpolation={self.interpolation!r}, '
            f'fill_color={self.fill_color})'
        )

"""DecodeRandomResizedCrop: the release's random crop, decoding no more of an image than it needs."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets.transforms import RandomResizedCrop

from ..encoded_image import REDUCTIONS, EncodedImage
from .antialias import INTERPOLATIONS, resize_box
from .channels import to_planes

# A JPEG is decoded at a fraction of its size only if the crop then still has twice the pixels that come out, in each
# direction: the decoder's way of making pixels larger is not PIL's filter, and less than this would show.
OVERSAMPLING = 2


@TRANSFORMS.register_module()
class DecodeRandomResizedCrop(RandomResizedCrop):
    """Decode, crop, resize and flip in one: mmpretrain's ``RandomResizedCrop`` and ``RandomFlip`` of what is needed.

    Draws the boxes and flips that those two draw from numpy's generator, and gives their pixels with
    ``backend='pillow'`` within 1 of 255 where the crop is not large; see docs/augmentation.md.

    Required key: ``encoded``, from ``LoadEncodedImage``; removed. Added keys: ``img`` (*scale, 3), uint8, BGR;
    ``img_shape``, ``flip``, ``flip_direction``.

    Args:
        scale (int | Sequence[int]): Height and width to come out; a square for one number.
        crop_ratio_range (Sequence[float]): Least and largest part of the area. Defaults to (0.08, 1.0).
        aspect_ratio_range (Sequence[float]): Least and largest ratio of width to height. Defaults to (3 / 4, 4 / 3).
        max_attempts (int): Draws before a crop of the middle is taken. Defaults to 10.
        interpolation (str): 'bilinear' or 'bicubic', anti-aliased. Defaults to 'bilinear'.
        flip_prob (float): Probability of a horizontal flip. Defaults to 0.5.

    Raises:
        ValueError: The interpolation is neither of the two, or ``flip_prob`` is no probability.
        UnreadableImage: The data of the crop is damaged; names the file.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: Sequence[float] = (0.08, 1.0),
        aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bilinear',
        flip_prob: float = 0.5,
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f'interpolation={interpolation!r} is not known; choose from {list(INTERPOLATIONS)}')
        if not 0 <= flip_prob <= 1:
            raise ValueError(f'flip_prob={flip_prob} must lie in 0..1')
        super().__init__(scale, crop_ratio_range, aspect_ratio_range, max_attempts, interpolation, backend='pillow')
        self.flip_prob = flip_prob

    def transform(self, results: dict) -> dict:
        """Decode a random crop of ``results['encoded']``."""
        encoded: EncodedImage = results.pop('encoded')
        box, flip = self.draw(encoded)
        results['img'] = self.decode(encoded, box, flip)
        results.update(img_shape=tuple(self.scale), flip=flip, flip_direction='horizontal' if flip else None)
        return results

    def draw(self, encoded: EncodedImage) -> tuple[tuple[int, int, int, int], bool]:
        """Draw what becomes of an image.

        Args:
            encoded (EncodedImage): The image.

        Returns:
            tuple[tuple[int, int, int, int], bool]: The box (top, left, height, width), and whether to flip it.
        """
        box = self.rand_crop_params(encoded)  # which looks at the shape only
        # One number in 0..1, as the choice between two directions in mmcv's RandomFlip draws it.
        return box, bool(np.random.random_sample() < self.flip_prob)

    def decode(self, encoded: EncodedImage, box: tuple[int, int, int, int], flip: bool) -> np.ndarray:
        """Decode what was drawn.

        Args:
            encoded (EncodedImage): The image.
            box (tuple[int, int, int, int]): Top, left, height and width in its pixels.
            flip (bool): Whether left and right change places.

        Returns:
            np.ndarray: uint8 (*scale, 3), BGR, a view of (3, *scale).

        Raises:
            UnreadableImage: The data of the box is damaged.
        """
        image = decode_box(encoded, box, tuple(self.scale), self.interpolation)
        return to_planes(cv2.flip(image, 1) if flip else image)

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, flip_prob={self.flip_prob})'


def decode_box(
    encoded: EncodedImage, box: tuple[int, int, int, int], size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Decode a box of an image and resize it, anti-aliased.

    Args:
        encoded (EncodedImage): The image.
        box (tuple[int, int, int, int]): Top, left, height and width in its pixels.
        size (tuple[int, int]): Height and width to come out.
        interpolation (str): 'bilinear' or 'bicubic'.

    Returns:
        np.ndarray: uint8 (*size, 3), BGR.

    Raises:
        UnreadableImage: The data of the box is damaged.
    """
    pixels = min(box[2] / size[0], box[3] / size[1])  # of the crop, for one that comes out
    enough = [factor for factor in REDUCTIONS if pixels >= OVERSAMPLING * factor]
    image, reduction = encoded.rows(box[0] + box[2], max(enough, default=1))
    top, left, height, width = (edge / reduction for edge in box)
    return resize_box(image, (top, left, height, width), size, interpolation)

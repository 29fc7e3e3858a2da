"""DecodeSegCrop: mmseg's random resize, crop and flip, on no more of an image than comes out."""

from collections.abc import Sequence
from math import ceil

import cv2
import mmcv
import numpy as np
from mmcv.transforms import RandomResize
from mmengine.registry import TRANSFORMS
from mmseg.datasets.transforms import RandomCrop

from ..encoded_image import EncodedImage
from .channels import to_planes


@TRANSFORMS.register_module()
class DecodeSegCrop(RandomCrop):
    """mmseg's ``RandomResize`` (``keep_ratio=True``), ``RandomCrop`` and ``RandomFlip`` in one, in another order.

    The label map is resized and the crop chosen on it first; then the image is decoded and resized as far as the crop
    reaches. Draws what the three draw from numpy's generator, and gives the same label maps and images: bilinear, not
    anti-aliased, as mmseg's.

    Required keys: ``encoded``, from ``LoadEncodedImage``; removed. ``gt_seg_map`` of the image's size, and
    ``seg_fields``, from ``LoadAnnotations`` behind it. Added keys: ``img``, uint8, BGR, of ``crop_size`` or as large as
    the resized image is; ``img_shape``, ``scale``, ``scale_factor``, ``keep_ratio``, ``flip``, ``flip_direction``.
    Modified: ``gt_seg_map``.

    Args:
        scale (tuple[int, int]): Width and height into which the image is fitted, before the ratio.
        ratio_range (tuple[float, float]): Least and largest factor of ``scale``.
        crop_size (int | tuple[int, int]): Height and width of the crop.
        cat_max_ratio (float): Largest part of a crop that one class may fill; ten crops are tried. Defaults to 1.
        ignore_index (int): Value in label maps that is no class. Defaults to 255.
        flip_prob (float): Probability of a horizontal flip. Defaults to 0.5.

    Raises:
        ValueError: ``flip_prob`` is no probability, or there are other ``seg_fields`` than ``gt_seg_map``.
        UnreadableImage: The data of the crop is damaged; names the file.
    """

    def __init__(
        self,
        scale: tuple[int, int],
        ratio_range: tuple[float, float],
        crop_size: int | tuple[int, int],
        cat_max_ratio: float = 1.0,
        ignore_index: int = 255,
        flip_prob: float = 0.5,
    ) -> None:
        if not 0 <= flip_prob <= 1:
            raise ValueError(f'flip_prob={flip_prob} must lie in 0..1')
        super().__init__(crop_size, cat_max_ratio, ignore_index)
        self.resize = RandomResize(scale, ratio_range, keep_ratio=True)
        self.flip_prob = flip_prob

    def transform(self, results: dict) -> dict:
        """Decode a random crop of ``results['encoded']``."""
        if results['seg_fields'] != ['gt_seg_map']:
            raise ValueError(
                f"DecodeSegCrop: seg_fields={results['seg_fields']}, expected ['gt_seg_map']; put LoadAnnotations "
                "before it, or use mmseg's RandomResize, RandomCrop and RandomFlip"
            )
        encoded: EncodedImage = results.pop('encoded')
        height, width = encoded.shape
        scale = self.resize._random_scale()
        (new_width, new_height), _ = mmcv.rescale_size((width, height), scale, return_scale=True)
        label = cv2.resize(results['gt_seg_map'], (new_width, new_height), interpolation=cv2.INTER_NEAREST)
        top, bottom, left, right = self._choose_crop(label)
        # One number in 0..1, as the choice between two directions in mmcv's RandomFlip draws it.
        flip = np.random.random_sample() < self.flip_prob

        label = label[top:bottom, left:right]
        image = decode_window(encoded, (new_height, new_width), (top, left, *label.shape))
        results['img'] = to_planes(cv2.flip(image, 1) if flip else image)
        results['gt_seg_map'] = cv2.flip(label, 1) if flip else label.copy()
        results.update(
            scale=scale,
            scale_factor=(new_width / width, new_height / height),
            keep_ratio=True,
            img_shape=label.shape,
            flip=flip,
            flip_direction='horizontal' if flip else None,
        )
        return results

    def _choose_crop(self, label: np.ndarray) -> tuple[int, int, int, int]:
        """First and last rows and columns of a crop, as mmseg's ``crop_bbox`` draws it, but counted quicker."""
        margins = [max(length - size, 0) for length, size in zip(label.shape, self.crop_size, strict=True)]
        for _ in range(11):  # the eleventh is taken as it is
            top, left = (np.random.randint(0, margin + 1) for margin in margins)
            crop = top, top + self.crop_size[0], left, left + self.crop_size[1]
            if self.cat_max_ratio >= 1:
                break
            counts = cv2.calcHist([label[crop[0] : crop[1], crop[2] : crop[3]]], [0], None, [256], [0, 256]).ravel()
            counts[self.ignore_index] = 0
            if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio:
                break
        return crop

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.resize.scale}, ratio_range={self.resize.ratio_range}, '
            f'crop_size={self.crop_size}, cat_max_ratio={self.cat_max_ratio}, flip_prob={self.flip_prob})'
        )


def decode_window(encoded: EncodedImage, shape: tuple[int, int], window: Sequence[int]) -> np.ndarray:
    """Decode what shows in a window of the resized image; OpenCV's bilinear interpolation, as mmcv resizes.

    What lies below and right of the window is neither decoded nor resized. What lies above and left of it is: only from
    its corner on does every pixel of the resized image lie where it lies in the whole.

    Args:
        encoded (EncodedImage): The image.
        shape (tuple[int, int]): Height and width of the whole image, resized.
        window (Sequence[int]): Top, left, height and width in it.

    Returns:
        np.ndarray: uint8 (window height, window width, 3), BGR, contiguous.

    Raises:
        UnreadableImage: The data of the window is damaged.
    """
    top, left, height, width = window
    steps = [length / new for length, new in zip(encoded.shape, shape, strict=True)]
    # Two more than the last pixel looks at, so that none sees the edge; as many as there are at the edge itself.
    rows, columns = (
        min(length, ceil(end * step) + 2)
        for length, end, step in zip(encoded.shape, (top + height, left + width), steps, strict=True)
    )
    image, _ = encoded.rows(rows)
    # From the factors, OpenCV computes where each pixel lies; from a size, it would stretch the source to it.
    resized = cv2.resize(image[:rows, :columns], None, fx=1 / steps[1], fy=1 / steps[0])
    return np.ascontiguousarray(resized[top : top + height, left : left + width])

"""TablePhotoMetricDistortion: mmseg's PhotoMetricDistortion by tables of 256 entries, on bytes."""

from functools import reduce

import cv2
import numpy as np
from mmengine.registry import TRANSFORMS
from mmseg.datasets.transforms import PhotoMetricDistortion

from .channels import to_pixels, to_planes

_SAME = np.arange(256, dtype=np.uint8)


@TRANSFORMS.register_module()
class TablePhotoMetricDistortion(PhotoMetricDistortion):
    """mmseg's ``PhotoMetricDistortion``, byte for byte and from the same draws, without its passes in floats.

    Every change it makes is a function of one byte, of a channel in BGR or in HSV: so its 256 values are computed, by
    mmseg's own arithmetic, and looked up. Changes that follow each other in one colour space are one table.

    Required key: ``img`` (H, W, 3), uint8, BGR. Modified key: ``img``, (H, W, 3), a view of (3, H, W), the layout of
    a batch.

    Args:
        **kwargs: Those of mmseg's class: ``brightness_delta``, ``contrast_range``, ``saturation_range``, ``hue_delta``.
    """

    def transform(self, results: dict) -> dict:
        """Distort ``results['img']``."""
        before = [self.brightness(_SAME)]
        contrast_first = bool(np.random.randint(2))
        if contrast_first:
            before.append(self.contrast(_SAME))
        image = _look_up(to_pixels(results['img']), before)
        for channel, table in ((1, self.saturation), (0, self.hue)):
            image = _look_up_hsv(image, channel, table(_SAME))
        if not contrast_first:
            image = _look_up(image, [self.contrast(_SAME)])
        results['img'] = to_planes(image)
        return results

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Random saturation of the values of that channel; the same array if none."""
        if np.random.randint(2):
            return self.convert(img, alpha=np.random.uniform(self.saturation_lower, self.saturation_upper))
        return img

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Random hue of the values of that channel, in 0..179; the same array if none."""
        if np.random.randint(2):
            return ((img.astype(int) + np.random.randint(-self.hue_delta, self.hue_delta)) % 180).astype(np.uint8)
        return img


def _look_up(image: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    tables = [table for table in tables if table is not _SAME]
    return cv2.LUT(image, reduce(lambda first, then: then[first], tables)) if tables else image


def _look_up_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    if table is _SAME:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    values = cv2.LUT(cv2.extractChannel(hsv, channel), table)
    cv2.insertChannel(values, hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

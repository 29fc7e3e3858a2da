"""DrawRandomResizedCrop: the release's random crop, drawn by a data worker and decoded where the model is."""

import numpy as np
from mmengine.registry import TRANSFORMS

from ..encoded_batch import Crop
from ..encoded_image import EncodedImage
from .decode_random_resized_crop import DecodeRandomResizedCrop


@TRANSFORMS.register_module()
class DrawRandomResizedCrop(DecodeRandomResizedCrop):
    """``DecodeRandomResizedCrop`` that leaves decoding to the model's ``DecodeDataPreprocessor``.

    Draws the same boxes and flips from numpy's generator, and hands a JPEG on as its file holds it. What a GPU's
    decoder may read otherwise, or not at all, is decoded here: other formats, JPEG with CMYK or RGB colours, with a
    turn by EXIF, with 12 bits, or neither baseline nor progressive.

    Goes with ``PackInputs(algorithm_keys=['crop'])`` behind it and ``collate_fn=dict(type='collate_encoded')``; see
    docs/augmentation.md.

    Required key: ``encoded``, from ``LoadEncodedImage``; removed. Added keys: ``img``, uint8: the bytes of a JPEG
    (length,), or the pixels (*scale, 3), BGR, of another image; ``crop``, a
    :class:`nepa_mm.datasets.encoded_batch.Crop` of a JPEG; ``img_shape``, ``flip``, ``flip_direction``.

    Args:
        *args: Those of ``DecodeRandomResizedCrop``.
        **kwargs: As above.

    Raises:
        UnreadableImage: An image that is decoded here is damaged; names the file. ``LoadEncodedImage`` finds a JPEG
            that is cut short, the preprocessor what else is damaged in it.
    """

    def transform(self, results: dict) -> dict:
        """Draw a random crop of ``results['encoded']``."""
        encoded: EncodedImage = results['encoded']
        file = encoded.file_for_hardware
        if file is None:
            return super().transform(results)
        del results['encoded']
        box, flip = self.draw(encoded)
        # A copy, since torch wants memory that can be written.
        results['img'] = np.frombuffer(bytearray(file), np.uint8)
        results['crop'] = Crop(box, flip, tuple(self.scale), self.interpolation, encoded.shape)
        results.update(img_shape=tuple(self.scale), flip=flip, flip_direction='horizontal' if flip else None)
        return results

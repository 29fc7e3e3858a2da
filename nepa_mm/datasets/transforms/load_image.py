"""LoadImageFromBytes: decodes an image that the data set hands over encoded."""

import mmcv
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromBytes(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` for images that are in memory, as ``HuggingFaceImageDataset`` gives them.

    Required keys: ``img_bytes``, the encoded image, and ``img_path``, its name for messages. Added keys: ``img``
    (H, W, 3), BGR, ``img_shape``, ``ori_shape``. Removed: ``img_bytes``, so that it is not carried on.

    Args:
        **kwargs: Those of ``LoadImageFromFile`` that concern decoding: ``to_float32``, ``color_type``,
            ``imdecode_backend``.

    Raises:
        ValueError: If the image cannot be decoded; names it.
    """

    def transform(self, results: dict) -> dict:
        data = results.pop('img_bytes')
        image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        if image is None:
            raise ValueError(f'LoadImageFromBytes: {results.get("img_path")} cannot be decoded ({len(data)} bytes).')
        if self.to_float32:
            image = image.astype('float32')
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

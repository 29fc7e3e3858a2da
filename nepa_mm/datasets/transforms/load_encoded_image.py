"""LoadEncodedImage: hands an image on as its file holds it, to a step that decodes only what it needs."""

from typing import Any

from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS

from .. import encoded_image
from ..encoded_image import EncodedImage
from ..reading import MAX_PIXELS
from .load_image import LoadImageFromFile

WITHOUT = 'simplejpeg is not installed: OpenCV decodes JPEG files, whole ones, which is slower; pip install simplejpeg'


@TRANSFORMS.register_module()
class LoadEncodedImage(LoadImageFromFile):
    """Read an image, from a file or from memory, and leave its pixels to a step that decodes what it needs.

    Such steps are ``DecodeRandomResizedCrop`` and ``DecodeSegCrop``. Where simplejpeg is not installed, OpenCV decodes
    whole images instead, which takes longer and gives the same pixels; a line in the log says so.

    Required keys: ``img_path``; its file is read unless ``img_bytes`` holds the encoded image, as
    ``HuggingFaceImageDataset`` gives it. Added keys: ``encoded``, an :class:`EncodedImage`; ``img_shape`` and
    ``ori_shape``, its height and width, upright. Removed: ``img_bytes``.

    Args:
        max_pixels (int): See :func:`nepa_mm.datasets.read_image`. Defaults to 178,956,970.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None.

    Raises:
        UnreadableImage: It cannot be read; in training, the run's ``BadDataHook`` has it replaced.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, backend_args: dict[str, Any] | None = None) -> None:
        super().__init__(max_pixels=max_pixels, backend_args=backend_args)
        if encoded_image.simplejpeg is None:
            print_log(WITHOUT, logger='current')

    def transform(self, results: dict) -> dict | None:
        """Read the file, or take the bytes."""
        data = results.pop('img_bytes', None)
        return super().transform(results) if data is None else self._add(results, data)

    def _add(self, results: dict, data: bytes) -> dict:
        image = EncodedImage(data, results['img_path'], self.max_pixels)
        results.update(encoded=image, img_shape=image.shape, ori_shape=image.shape)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_pixels={self.max_pixels}, backend_args={self.backend_args})'

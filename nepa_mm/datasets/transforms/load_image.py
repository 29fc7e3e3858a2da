"""Loading of images: every image enters through :func:`nepa_mm.datasets.read_image`, whichever config names the step.

``LoadImageFromFile`` takes the place of mmcv's class of that name in the registry. The name has to stay, since the
inferencers of mmpretrain and mmseg look for it in a config. mmcv's own fills what a truncated file lacks with grey, and
raises errors without the file's name.
"""

from typing import Any

import mmcv.transforms
from mmengine import fileio
from mmengine.registry import TRANSFORMS

from ..errors import UnreadableImage
from ..files import is_state_of_file, read_file
from ..reading import MAX_PIXELS, read_image


@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, strict, and for images of every kind.

    Required key: ``img_path``. Added keys: ``img`` (H, W, 3), BGR, upright; ``img_shape``, ``ori_shape``.

    Args:
        max_pixels (int): See :func:`nepa_mm.datasets.read_image`. Defaults to 178,956,970.
        **kwargs: Those of mmcv's class. With another ``color_type`` than 'color' or ``imdecode_backend`` than 'cv2',
            mmcv decodes, and errors still name the file. With ``ignore_empty``, the result is None where an error would
            be raised.

    Raises:
        UnreadableImage: It cannot be read; in training, the run's ``BadDataHook`` has it replaced.
        OSError: The disk, the network or the process fails at it, and did so several times.
    """

    def __init__(self, *args: Any, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_pixels = max_pixels

    def transform(self, results: dict) -> dict | None:
        """Read the file."""
        path = results['img_path']
        try:
            data = read_file(path, self._get)
        except OSError as error:
            if self.ignore_empty:
                return None
            if not is_state_of_file(error):
                raise
            raise UnreadableImage(path, error.strerror or str(error)) from error
        return self._add(results, data)

    def _get(self, path: str) -> bytes:
        if self.file_client_args is not None:
            return fileio.FileClient.infer_client(self.file_client_args, path).get(path)
        return fileio.get(path, backend_args=self.backend_args)

    def _add(self, results: dict, data: bytes) -> dict | None:
        """Decode the image into the results."""
        try:
            image = self._decode(data, str(results.get('img_path')))
        except UnreadableImage:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype('float32')
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def _decode(self, data: bytes, source: str) -> Any:
        if self.color_type == 'color' and self.imdecode_backend == 'cv2':
            return read_image(data, source, self.max_pixels)
        if self.color_type != 'unchanged':
            read_image(data, source, self.max_pixels)  # mmcv's decoders do not tell what is cut short
        try:
            image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # whatever the decoder stumbles over
            raise UnreadableImage(source, str(error)) from error
        if image is None:
            raise UnreadableImage(source, f'{len(data):,} bytes that {self.imdecode_backend} cannot decode')
        return image


@TRANSFORMS.register_module()
class LoadImageFromBytes(LoadImageFromFile):
    """``LoadImageFromFile`` for images that are in memory, as ``HuggingFaceImageDataset`` gives them.

    Required keys: ``img_bytes``, the encoded image, and ``img_path``, its name for messages. Added keys: as above.
    Removed: ``img_bytes``, so that it is not carried on.

    Args:
        **kwargs: Those of :class:`LoadImageFromFile` that concern decoding: ``to_float32``, ``color_type``,
            ``imdecode_backend``, ``max_pixels``.

    Raises:
        UnreadableImage: As above.
    """

    def transform(self, results: dict) -> dict | None:
        """Decode the bytes."""
        return self._add(results, results.pop('img_bytes'))

"""LoadAnnotations: mmseg's, which names the file of a label map that does not fit.

Takes the place of mmseg's class of that name in its registry; the name has to stay, since mmseg's inferencer takes the
step of that name out of a config. mmseg's own cuts 16-bit values to their low byte, takes a label map of any size, and
raises errors without the file's name.
"""

from functools import partial

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import loading
from mmseg.registry import TRANSFORMS

from ..errors import LabelError
from ..files import is_state_of_file, read_file
from ..label_maps import as_label_map, check_size, read_label_map, to_classes


@TRANSFORMS.register_module(force=True)
class LoadAnnotations(loading.LoadAnnotations):
    """mmseg's ``LoadAnnotations`` with checks.

    Required keys: ``seg_map_path``, ``reduce_zero_label``, ``seg_fields``, as mmseg's data sets give them. Added key:
    ``gt_seg_map`` (H, W), uint8. Its size is compared with ``ori_shape``, which a loaded image leaves behind, so the
    step may stand before or after a resize.

    Args:
        **kwargs: Those of mmseg's class.

    Raises:
        LabelError: The label map cannot be read, is a picture of colours, has values above 255, or another size than
            its image.
    """

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        reduced = results['reduce_zero_label']
        if self.reduce_zero_label not in (None, reduced):
            raise ValueError(
                f'LoadAnnotations: reduce_zero_label={self.reduce_zero_label}, but the data set has {reduced}; set it '
                'at the data set only'
            )
        try:
            data = read_file(path, partial(fileio.get, backend_args=self.backend_args))
        except OSError as error:
            if not is_state_of_file(error):
                raise
            raise LabelError(f'label map {path!r} cannot be read: {error.strerror or error}') from error
        label = self._decode(data, path)
        if 'ori_shape' in results:
            check_size(label, path, results['ori_shape'][:2], results['img_path'])
        results['gt_seg_map'] = to_classes(label, reduced, results.get('label_map'))
        results['seg_fields'].append('gt_seg_map')

    def _decode(self, data: bytes, path: str) -> np.ndarray:
        if self.imdecode_backend == 'pillow':
            return read_label_map(data, path)
        label = mmcv.imfrombytes(data, flag='unchanged', backend=self.imdecode_backend)
        if label is None:
            raise LabelError(f'label map {path!r} ({len(data):,} bytes): {self.imdecode_backend} cannot decode it')
        return as_label_map(label.squeeze(), path, f'{label.dtype} {label.shape}')

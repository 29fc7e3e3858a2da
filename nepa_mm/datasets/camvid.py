"""CamVid street scenes for segmentation: 11 classes, void ignored."""

import os.path as osp

from mmengine import fileio
from mmengine.registry import DATASETS
from mmseg.datasets.basesegdataset import BaseSegDataset

_PREPARE = 'prepare it with tools/dataset_converters/camvid.py'


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid (Brostow et al., 2009) in the 11 classes that SegNet made customary.

    Reads what ``tools/dataset_converters/camvid.py`` writes: ``images/{train,val[,test]}`` and
    ``annotations/{train,val[,test]}``, labels 0 to 10 with 255 for void.

    Args:
        img_suffix (str, optional): Suffix of the images. Defaults to None, which takes '.png' or
            '.jpg', whichever the image folder holds: both forms of the data set are in use.
        **kwargs: Those of mmseg's ``BaseSegDataset``.

    Raises:
        FileNotFoundError: When the image folder is missing or holds no image.
        ValueError: When it holds both kinds and ``img_suffix`` does not choose.
    """

    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign symbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    def __init__(self, img_suffix: str | None = None, **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images of the split with their label files.

        Returns:
            list[dict]: As in ``BaseSegDataset``, sorted by path.
        """
        self.img_suffix: str | None
        folder = self.data_prefix.get('img_path') or ''
        if self.img_suffix is None:
            self.img_suffix = self._find_suffix(folder)
        data_list = super().load_data_list()
        if not data_list:
            raise FileNotFoundError(f'{type(self).__name__}: no {self.img_suffix} image in {folder!r}; {_PREPARE}')
        return data_list

    def _find_suffix(self, folder: str) -> str:
        """Tell which kind of image a folder holds."""
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise FileNotFoundError(f'{type(self).__name__}: image folder {folder!r} does not exist; {_PREPARE}')
        names = fileio.list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=self.backend_args)
        suffixes = {osp.splitext(name)[1] for name in names} & {'.jpg', '.png'}
        if not suffixes:
            raise FileNotFoundError(f'{type(self).__name__}: neither .jpg nor .png images in {folder!r}; {_PREPARE}')
        if len(suffixes) > 1:
            raise ValueError(
                f'{type(self).__name__}: {folder!r} holds .jpg and .png images; '
                "choose with img_suffix='.jpg' or img_suffix='.png'"
            )
        return suffixes.pop()

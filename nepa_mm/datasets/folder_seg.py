"""A segmentation data set in two folders, images and masks, with errors that help."""

import os.path as osp
from typing import Any

from mmengine import fileio
from mmengine.registry import DATASETS
from mmseg.datasets.basesegdataset import BaseSegDataset

SUFFIXES = ('.jpg', '.png', '.jpeg', '.JPEG', '.JPG', '.PNG', '.bmp', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class FolderSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset``, which finds the images' suffix by itself and says what is wrong with an empty folder.

    Args:
        img_suffix (str, optional): Suffix of the images. Defaults to None: the one kind of image that the folder holds.
        **kwargs: Those of mmseg's ``BaseSegDataset``, such as ``data_root``, ``data_prefix``, ``reduce_zero_label`` and
            ``metainfo=dict(classes=...)``.

    Raises:
        FileNotFoundError: The image folder is missing or holds no image.
        ValueError: It holds several kinds of image and ``img_suffix`` does not choose.
    """

    # What to do about a missing folder.
    HINT = 'set data_root and data_prefix.img_path in the config'

    def __init__(self, img_suffix: str | None = None, **kwargs: Any) -> None:
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
            raise FileNotFoundError(f'{type(self).__name__}: no {self.img_suffix} image in {folder!r}; {self.HINT}.')
        return data_list

    def _find_suffix(self, folder: str) -> str:
        """Tell which kind of image a folder holds."""
        name = type(self).__name__
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise FileNotFoundError(f'{name}: image folder {folder!r} does not exist; {self.HINT}.')
        files = fileio.list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=self.backend_args)
        found = sorted({osp.splitext(file)[1] for file in files} & set(SUFFIXES))
        if not found:
            raise FileNotFoundError(f'{name}: no images ({", ".join(SUFFIXES[:3])}, ...) in {folder!r}; {self.HINT}.')
        if len(found) > 1:
            raise ValueError(
                f'{name}: {folder!r} holds {" and ".join(found)} images; choose one with img_suffix={found[0]!r}.'
            )
        return found[0]

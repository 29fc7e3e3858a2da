"""Images of a Hugging Face data set, read where it lies: saved to disk, or a folder of parquet files."""

import os
from typing import Any

from mmengine.registry import DATASETS
from mmpretrain.datasets import BaseDataset

from .hugging_face_rows import open_rows


@DATASETS.register_module()
class HuggingFaceImageDataset(BaseDataset):
    """Images, with or without labels, of a Hugging Face data set on this machine; nothing is unpacked or downloaded.

    ``data_root`` holds either what ``save_to_disk`` wrote (one data set, or one with splits), which is memory-mapped
    and quick in any order, or the parquet files of the hub (``train-00000-of-00294.parquet``, at any depth), of which
    an image out of order costs the reading of its whole row group. Images stay encoded until the pipeline's
    :class:`LoadImageFromBytes`.

    Args:
        data_root (str): The folder.
        split (str): Split of the data set; 'val' and 'validation' name the same. '' takes what has no splits, or all
            parquet files. Defaults to 'train'.
        image_key (str): Column of the images. Defaults to 'image'.
        label_key (str): Column of the class indices. Defaults to 'label'.
        with_label (bool): Whether to read labels; False for pretraining. Defaults to True.
        **kwargs: Those of mmpretrain's ``BaseDataset``, such as ``pipeline``, ``indices``, ``metainfo``.

    Raises:
        ImportError: The library ``datasets`` is not installed.
        FileNotFoundError: There is no such folder, no data set in it, or no such split.
        ValueError: A column is missing, or the split has no labels.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        image_key: str = 'image',
        label_key: str = 'label',
        with_label: bool = True,
        **kwargs: Any,
    ) -> None:
        self.split, self.image_key, self.label_key, self.with_label = split, image_key, label_key, with_label
        self.rows = open_rows(os.path.expanduser(data_root), split, image_key)
        lazy_init = kwargs.pop('lazy_init', False)
        super().__init__(ann_file='', data_root=data_root, lazy_init=True, **kwargs)
        names = self.rows.class_names(label_key) if with_label else None
        if names is not None and 'classes' not in self._metainfo:
            self._metainfo['classes'] = tuple(names)
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """List rows and labels; the images stay where they are.

        Returns:
            list[dict]: ``row``, ``img_path`` (a name for messages) and, with labels, ``gt_label``.
        """
        count = len(self.rows)
        if not count:
            raise ValueError(f'HuggingFaceImageDataset: split {self.split!r} of {self.data_root!r} is empty.')
        infos: list[dict] = [dict(row=row, img_path=f'{self.rows.name}[{row}]') for row in range(count)]
        if self.with_label:
            for info, label in zip(infos, self._labels(), strict=True):
                info['gt_label'] = label
        return infos

    def _labels(self) -> list[int]:
        labels = self.rows.column(self.label_key)
        if labels.dtype.kind not in 'iu' or labels.min() < 0:
            found = labels[labels < 0][0] if labels.dtype.kind in 'iu' else labels[0]
            raise ValueError(
                f'HuggingFaceImageDataset: column {self.label_key!r} of split {self.split!r} holds {found!s:.40}, '
                'expected class indices from 0; a split without labels is read with with_label=False.'
            )
        return labels.tolist()

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline gets of a sample.

        Args:
            idx (int): Index of the sample.

        Returns:
            dict: As in ``load_data_list``, and ``img_bytes``, the encoded image.
        """
        info = super().get_data_info(idx)
        info['img_bytes'] = self.rows.image(info['row'])
        return info

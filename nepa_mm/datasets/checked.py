"""CheckedDataset: a data set whose bad images are replaced and whose wrong labels are named."""

from typing import Any

import torch
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement

from .bad_images import BadImages
from .errors import LabelError, TooManyBadImagesError, UnreadableImage


@DATASETS.register_module()
class CheckedDataset:
    """Wraps a data set of any kind, and looks at what comes out of it.

    An image that cannot be read is noted and replaced by the next one of the data set that can: the same one in every
    epoch, on every machine and after every resume. Without a list to note it in, as in evaluation, it is an error. A
    label that is none of the model's classes is an error that names its file.

    Args:
        dataset (Dataset | dict): The data set or its config. Its pipeline raises
            :class:`nepa_mm.datasets.UnreadableImage`, as ours do.
        bad_images (BadImages, optional): Where bad images are noted. Defaults to None: they are errors.
        num_classes (int, optional): Classes that the model takes: 2 for a binary head, though it has one channel.
            Defaults to None: labels are not looked at.
        ignore_index (int): Value in label maps that the losses leave out. Defaults to 255.
    """

    def __init__(
        self,
        dataset: Any,
        bad_images: BadImages | None = None,
        num_classes: int | None = None,
        ignore_index: int = 255,
    ) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.bad_images, self.num_classes, self.ignore_index = bad_images, num_classes, ignore_index
        if bad_images is not None:
            bad_images.total = count_images(self.dataset)

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of the data set, such as its ``metainfo``."""
        # mmpretrain's hooks tell by these two whether to look into `dataset`; torch has names of its own.
        if name in ('dataset', 'datasets', 'pipeline') or name.startswith('__'):
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> Any:
        for step in range(len(self)):
            try:
                sample = self.dataset[idx if step == 0 else (idx + step) % len(self)]
            except UnreadableImage as error:
                if self.bad_images is None:
                    raise
                self.bad_images.add(error)
                continue
            if self.num_classes is not None:
                check_labels(sample, self.num_classes, self.ignore_index)
            return sample
        raise TooManyBadImagesError(f'none of the {len(self):,} images of the training set can be read')


def count_images(dataset: Any) -> int:
    """Number of images in a data set; repeated ones count once.

    Args:
        dataset (Dataset): It, or a wrapper such as ``ConcatDataset`` and ``RepeatDataset``.

    Returns:
        int: The number.
    """
    if hasattr(dataset, 'datasets'):
        return sum(count_images(part) for part in dataset.datasets)
    return count_images(dataset.dataset) if hasattr(dataset, 'dataset') else len(dataset)


def check_labels(sample: Any, num_classes: int, ignore_index: int = 255) -> None:
    """Refuse labels that are no class of the model.

    The losses fail on them far from the file: out of memory bounds on a GPU, and not at all in a metric.

    Args:
        sample (dict): What a pipeline's ``PackInputs`` or ``PackSegInputs`` gives; other things are let through.
        num_classes (int): Classes of the model.
        ignore_index (int): Value in label maps that is no class either. Defaults to 255.

    Raises:
        LabelError: A label is out of range, or a label map has another size than its image.
    """
    packed = sample.get('data_samples') if isinstance(sample, dict) else None
    if not isinstance(packed, BaseDataElement):  # test-time augmentation has views of one image here
        return
    if 'gt_sem_seg' in packed:
        label = packed.gt_sem_seg.data
        if label.numel() and int(label.max()) >= num_classes:  # one quick look, and the costly one where needed
            found = label[label != ignore_index].unique()
            _refuse(f'label map {packed.get("seg_map_path")!r} holds', found[found >= num_classes], num_classes)
    if 'gt_label' in packed:
        label = packed.gt_label
        wrong = label[(label >= num_classes) | (label < 0)]
        _refuse(f'image {packed.get("img_path")!r} has', wrong, num_classes)


def _refuse(start: str, wrong: torch.Tensor, num_classes: int) -> None:
    if wrong.numel():
        some = ', '.join(map(str, wrong[:10].tolist()))
        raise LabelError(f'{start} label {some}, but the model has {num_classes} classes, 0 to {num_classes - 1}')

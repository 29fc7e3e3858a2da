"""Per-class tables and the confusion matrix, from the evaluation pass itself, for segmentation and classification."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from torch import Tensor

MATRIX_FILES = ('.png', '.csv', '.json')
# The column of predictions that are none of the data set's classes.
OTHER = 'other'
NO_LABEL, SEVERAL_LABELS, NO_NAMES = 'no label', 'several labels', 'no class names'


@METRICS.register_module()
class PerClassMetric(BaseMetric):
    """Counts which class is taken for which, and writes what follows from it to files; it reports no numbers itself.

    ``per_class.csv`` and ``per_class.json`` hold a row per class: for segmentation IoU, Acc and Precision in percent of
    pixels, with mmseg's ``IoUMetric``'s values; for classification Acc and Precision in percent of images. Acc is the
    recall: the share of a class's pixels or images that were recognised. A class that never occurs has no Acc. There is
    no table for data without labels, without class names (segmentation), or with several labels per image.

    A model may have more outputs than the data set has classes, such as ImageNet's head on a part of ImageNet: a
    prediction beyond the classes is counted as wrong, in a last column ``other`` of the matrix, and warned of.

    Args:
        out_dir (str, optional): Folder for the two tables. Defaults to None: none are written.
        confusion_matrix (str or Sequence[str]): Files for the confusion matrix, rows the truth and columns the
            prediction: ``.png`` and ``.csv`` with each row normalised to 1, ``.json`` with counts. Defaults to none.
        ignore_index (int): Label of pixels that do not count. Defaults to 255.
        collect_device (str): As in mmengine. Defaults to 'cpu'.

    Raises:
        ValueError: A file of the matrix is of another kind.
    """

    default_prefix = 'per_class'

    def __init__(
        self,
        out_dir: str | None = None,
        confusion_matrix: str | Sequence[str] = (),
        ignore_index: int = 255,
        collect_device: str = 'cpu',
    ) -> None:
        super().__init__(collect_device=collect_device)
        files = [confusion_matrix] if isinstance(confusion_matrix, str) else list(confusion_matrix)
        self.out_dir = out_dir
        self.matrix_files = [check_matrix_file(file) for file in files]
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count a batch.

        Args:
            data_batch: Not used.
            data_samples (Sequence[dict]): With ``gt_sem_seg`` and ``pred_sem_seg``, or ``gt_label`` and ``pred_label``.

        Raises:
            ValueError: A matrix is asked for, and an image has no label or several, or its classes have no names.
        """
        for sample in data_samples:
            # One entry per sample, counted or not: by their order mmengine tells which only padded the last batch.
            result = self._count(sample)
            if isinstance(result, str) and self.matrix_files:
                raise ValueError(
                    f'{sample.get("img_path", "an image")} has {result}; a confusion matrix needs the truth, one named '
                    'class for each image or pixel.'
                )
            self.results.append(result)

    def _count(self, sample: Mapping[str, Any]) -> tuple[str, int, np.ndarray, np.ndarray, int] | str:
        """Unit, number of classes, cells that occur, how often, labels of no class; or why it is not counted."""
        names = (self.dataset_meta or {}).get('classes')
        segmented = 'pred_sem_seg' in sample
        pair = _truth_and_prediction(sample)
        if isinstance(pair, str):
            return pair
        if not names and 'pred_score' not in sample:
            return NO_NAMES
        truth, prediction = pair
        count = len(names) if names else len(sample['pred_score'])
        kept = truth != self.ignore_index if segmented else torch.ones_like(truth, dtype=torch.bool)
        known = kept & (truth >= 0) & (truth < count)
        columns = torch.where((prediction >= 0) & (prediction < count), prediction, count)
        # Few of the classes occur in an image; a full matrix each would not fit into memory.
        where, counts = _occurring(truth[known] * (count + 1) + columns[known], count * (count + 1))
        return 'pixels' if segmented else 'images', count, where, counts, int((kept & ~known).sum())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Write the files.

        Args:
            results (list): Counts of all images.

        Returns:
            dict[str, float]: Empty.
        """
        counted = [result for result in results if not isinstance(result, str)]
        refused = sorted({result for result in results if isinstance(result, str)} - {NO_LABEL})
        if refused or not counted:
            print_log(f'No per-class table: images have {", ".join(refused) or NO_LABEL}.', logger='current')
            return {}
        unit, count = counted[0][:2]
        matrix = np.zeros(count * (count + 1), dtype=np.int64)
        for _, _, where, counts, _ in counted:
            matrix[where] += counts
        matrix = matrix.reshape(count, count + 1)
        unknown, others = sum(result[-1] for result in counted), int(matrix[:, count].sum())
        for number, what in (
            (
                unknown,
                'have a label that is none of the {} classes and were not counted; check reduce_zero_label and the '
                'labels.',
            ),
            (others, 'were taken for none of the {} classes, which counts as wrong; the model has more outputs.'),
        ):
            if number:
                print_log(f'{number} {unit} {what.format(count)}', logger='current', level=logging.WARNING)
        if not others:
            matrix = matrix[:, :count]
        classes = list(map(str, (self.dataset_meta or {}).get('classes') or range(count)))
        if self.out_dir is not None:
            files = write_table(per_class(matrix, classes, unit), Path(self.out_dir))
            print_log(f'per class results: {" and ".join(map(str, files))}', logger='current')
        for file in self.matrix_files:
            write_matrix(matrix, classes, file)
            print_log(f'confusion matrix: {file}', logger='current')
        return {}


def per_class(matrix: np.ndarray, classes: Sequence[str], unit: str) -> list[dict[str, Any]]:
    """Figures of each class.

    Args:
        matrix (np.ndarray): (N, N), counts; rows the truth, columns the prediction. (N, N + 1) with predictions of none
            of the classes.
        classes (Sequence[str]): Names.
        unit (str): What is counted: 'pixels' (IoU is given too) or 'images'.

    Returns:
        list[dict]: ``class``, ``IoU``, ``Acc``, ``Precision`` (percent; None where nothing to divide by) and the number
        of pixels or images of the class.
    """
    right, truth, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)[: len(classes)]

    def percent(part: int, whole: int) -> float | None:
        return round(100 * float(part) / float(whole), 2) if whole else None

    rows = []
    for i, name in enumerate(classes):
        row: dict[str, Any] = {'class': name}
        if unit == 'pixels':
            row['IoU'] = percent(right[i], truth[i] + predicted[i] - right[i])
        row['Acc'] = percent(right[i], truth[i])
        row['Precision'] = percent(right[i], predicted[i])
        row[unit] = int(truth[i])
        rows.append(row)
    return rows


def write_table(rows: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Path, Path]:
    """Write ``per_class.csv`` and ``per_class.json``.

    Args:
        rows (Sequence[Mapping]): From :func:`per_class`.
        folder (Path): Where; it is made.

    Returns:
        tuple[Path, Path]: The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, data = folder / 'per_class.csv', folder / 'per_class.json'
    with table.open('w', newline='', encoding='utf-8') as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    data.write_text(json.dumps(list(rows), indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    return table, data


def check_matrix_file(file: str | Path) -> Path:
    """The path of a file that :func:`write_matrix` can write.

    Raises:
        ValueError: It ends otherwise.
    """
    if Path(file).suffix not in MATRIX_FILES:
        raise ValueError(f'confusion matrix {str(file)!r}: the file must end with {", ".join(MATRIX_FILES)}.')
    return Path(file)


def normalise_rows(matrix: np.ndarray) -> np.ndarray:
    """Each row divided by its sum; NaN for a class that does not occur."""
    total = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)


def write_matrix(matrix: np.ndarray, classes: Sequence[str], file: Path) -> None:
    """Write a confusion matrix.

    Args:
        matrix (np.ndarray): (N, N), counts; rows the truth, columns the prediction. (N, N + 1) with predictions of none
            of the classes: the last column is called ``other``.
        classes (Sequence[str]): Names.
        file (Path): ``.png`` (a picture) or ``.csv``, with normalised rows, or ``.json``, with counts. Its folder is
            made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = [*classes, OTHER][: matrix.shape[1]]
    if file.suffix == '.json':
        file.write_text(json.dumps(dict(classes=list(classes), counts=matrix.tolist()), ensure_ascii=False) + '\n')
    elif file.suffix == '.csv':
        with file.open('w', newline='', encoding='utf-8') as stream:
            writer = csv.writer(stream, lineterminator='\n')
            writer.writerow(['truth \\ prediction', *columns])
            for name, row in zip(classes, normalise_rows(matrix), strict=True):
                writer.writerow([name, *('' if np.isnan(x) else f'{x:.6f}' for x in row)])
    else:
        from nepa_mm.visualization.confusion_matrix import draw_confusion_matrix

        draw_confusion_matrix(normalise_rows(matrix), classes, columns, file)


def _occurring(cells: Tensor, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of so many cells occur, and how often."""
    if len(cells) < 100:  # an image's class, which may be one of a million cells
        where, counts = cells.unique(return_counts=True)
        return where.cpu().numpy(), counts.cpu().numpy()
    counts_of_all = torch.bincount(cells, minlength=number).cpu().numpy()
    (occurring,) = counts_of_all.nonzero()
    return occurring, counts_of_all[occurring]


def _truth_and_prediction(sample: Mapping[str, Any]) -> tuple[Tensor, Tensor] | str:
    """Labels and predictions of a sample, flat and of int64; or why there are none."""
    if 'pred_sem_seg' in sample:
        if 'gt_sem_seg' not in sample:
            return NO_LABEL
        truth, prediction = sample['gt_sem_seg']['data'], sample['pred_sem_seg']['data']
    elif 'gt_label' not in sample or 'pred_label' not in sample:
        return NO_LABEL
    else:
        truth, prediction = torch.as_tensor(sample['gt_label']), torch.as_tensor(sample['pred_label'])
        if truth.numel() != 1 or prediction.numel() != 1:
            return SEVERAL_LABELS
    return truth.to(prediction.device).reshape(-1).long(), prediction.reshape(-1).long()

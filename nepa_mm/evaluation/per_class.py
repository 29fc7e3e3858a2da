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


@METRICS.register_module()
class PerClassMetric(BaseMetric):
    """Counts which class is taken for which, and writes what follows from it to files; it reports no numbers itself.

    ``per_class.csv`` and ``per_class.json`` hold a row per class: for segmentation IoU, Acc and Precision in percent of
    pixels, with mmseg's ``IoUMetric``'s values; for classification Acc and Precision in percent of images. Acc is the
    recall: the share of a class's pixels or images that were recognised. A class that never occurs has no Acc.

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
            ValueError: An image has several labels, or none where a matrix is asked for.
        """
        for sample in data_samples:
            pair = _truth_and_prediction(sample)
            if pair is None:
                if self.matrix_files:
                    raise ValueError(
                        f'{sample.get("img_path", "an image")} has no label; a confusion matrix needs the truth.'
                    )
                continue
            truth, prediction = pair
            names = (self.dataset_meta or {}).get('classes')
            count = len(names) if names else len(sample['pred_score'])
            kept = truth != self.ignore_index if 'pred_sem_seg' in sample else torch.ones_like(truth, dtype=torch.bool)
            known = kept & (truth >= 0) & (truth < count)
            cells = truth[known] * count + prediction[known]
            # Few of the classes occur in an image; a full matrix each would not fit into memory.
            where, counts = _count(cells, count * count)
            unit = 'pixels' if 'pred_sem_seg' in sample else 'images'
            self.results.append((unit, count, where, counts, int((kept & ~known).sum())))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Write the files.

        Args:
            results (list): Counts of all images.

        Returns:
            dict[str, float]: Empty.
        """
        if not results:
            print_log('No labels: no per-class table.', logger='current')
            return {}
        unit, count = results[0][:2]
        matrix = np.zeros(count * count, dtype=np.int64)
        for _, _, where, counts, _ in results:
            matrix[where] += counts
        matrix = matrix.reshape(count, count)
        unknown = sum(result[-1] for result in results)
        if unknown:
            print_log(
                f'{unknown} {unit} have a label that is none of the {count} classes and were not counted; check '
                'reduce_zero_label and the labels.',
                logger='current',
                level=logging.WARNING,
            )
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
        matrix (np.ndarray): (N, N), counts; rows the truth, columns the prediction.
        classes (Sequence[str]): Names.
        unit (str): What is counted: 'pixels' (IoU is given too) or 'images'.

    Returns:
        list[dict]: ``class``, ``IoU``, ``Acc``, ``Precision`` (percent; None where nothing to divide by) and the number
        of pixels or images of the class.
    """
    right, truth, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)

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
        matrix (np.ndarray): (N, N), counts; rows the truth, columns the prediction.
        classes (Sequence[str]): Names.
        file (Path): ``.png`` (a picture) or ``.csv``, with normalised rows, or ``.json``, with counts. Its folder is
            made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.json':
        file.write_text(json.dumps(dict(classes=list(classes), counts=matrix.tolist()), ensure_ascii=False) + '\n')
    elif file.suffix == '.csv':
        with file.open('w', newline='', encoding='utf-8') as stream:
            writer = csv.writer(stream, lineterminator='\n')
            writer.writerow(['truth \\ prediction', *classes])
            for name, row in zip(classes, normalise_rows(matrix), strict=True):
                writer.writerow([name, *('' if np.isnan(x) else f'{x:.6f}' for x in row)])
    else:
        from nepa_mm.visualization.confusion_matrix import draw_confusion_matrix

        draw_confusion_matrix(normalise_rows(matrix), classes, file)


def _count(cells: Tensor, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of so many cells occur, and how often."""
    if len(cells) < 100:  # an image's class, which may be one of a million cells
        where, counts = cells.unique(return_counts=True)
        return where.cpu().numpy(), counts.cpu().numpy()
    counts_of_all = torch.bincount(cells, minlength=number).cpu().numpy()
    (occurring,) = counts_of_all.nonzero()
    return occurring, counts_of_all[occurring]


def _truth_and_prediction(sample: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Labels and predictions of a sample, flat and of int64; None where it is not labelled."""
    if 'pred_sem_seg' in sample:
        if 'gt_sem_seg' not in sample:
            return None
        prediction = sample['pred_sem_seg']['data'].reshape(-1).long()
        return sample['gt_sem_seg']['data'].to(prediction.device).reshape(-1).long(), prediction
    if 'gt_label' not in sample or 'pred_label' not in sample:
        return None
    prediction = torch.as_tensor(sample['pred_label']).reshape(-1).long()
    truth = torch.as_tensor(sample['gt_label']).to(prediction.device).reshape(-1).long()
    if len(truth) != 1:
        raise ValueError(f'{sample.get("img_path", "an image")} has {len(truth)} labels; per class there must be one.')
    return truth, prediction

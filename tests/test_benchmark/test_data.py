"""The pipelines beside each other: small enough to run here, with what must hold whatever the machine."""

import argparse

import cv2
import numpy as np
import pytest
import torch

from nepa_mm.benchmark import data
from nepa_mm.benchmark.photos import encoded, photo


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """The benchmark sets the number of threads, for the process."""
    monkeypatch.setattr(torch, 'set_num_threads', lambda count: None)
    monkeypatch.setattr(cv2, 'setNumThreads', lambda count: None)


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    small = ['--images', '3', '--rounds', '2', '--warmup', '0', '--size', '80', '60', '--crop', '32']
    return parser.parse_args([*small, '--seg-crop', '32', *given])


def test_figures():
    report = data.run(arguments())
    rates = {figure.name: np.array(figure.values) for figure in report.figures if figure.unit == 'img/s'}
    assert len(rates) == 6 + 2 + 2 and all(len(values) == 2 and (values > 0).all() for values in rates.values())
    for name, target in (('mmpretrain, pillow', ('>=', 2.6)), ('bare decoding, OpenCV', None)):
        figure = report[f'pretraining: ours over {name}']
        assert figure.target == target
        np.testing.assert_allclose(figure.values, rates['pretraining: ours'] / rates[f'pretraining: {name}'])
    for use in ('fine-tuning', 'segmentation'):
        figure = report[f'{use}: ours over the host']
        assert figure.target == ('>=', 1.5)
        np.testing.assert_allclose(figure.values, rates[f'{use}: ours'] / rates[f'{use}: the host'])
    assert report['pretraining: ours'].target == ('>=', 1200)
    assert report.settings['images'] == 3 and report.settings['source'] == 'made'


def test_files_of_a_folder(tmp_path):
    for number in range(5):
        (tmp_path / 'deeper').mkdir(exist_ok=True)
        (tmp_path / 'deeper' / f'{number}.JPEG').write_bytes(encoded(photo(50, 60, number)))
    (tmp_path / 'note.txt').write_text('no image')
    report = data.run(arguments('--folder', str(tmp_path), '--uses', 'pretrain', '--device', 'cpu'))
    assert (np.array(report['pretraining: decoded on cpu'].values) > 0).all()
    assert report.settings['images'] == 3 and report.settings['source'] == 'files of the folder'
    assert not any('segmentation' in figure.name for figure in report.figures)
    with pytest.raises(ValueError, match='holds no files'):
        data.run(arguments('--folder', str(tmp_path / 'nowhere')))

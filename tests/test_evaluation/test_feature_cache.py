"""FeatureCache: what lies in its folder is numbers, or is not read."""

import os

import numpy as np
import pytest

from nepa_mm.evaluation.feature_cache import LABELS, FeatureCache


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f'touch {self.trace}',)


def test_arrays_of_objects_do_not_run(tmp_path):
    cache = FeatureCache(tmp_path, 'train', dict(a=1))
    cache.folder.mkdir()
    objects = np.array([Payload(tmp_path / 'ran')], dtype=object)
    for name in (LABELS, 'layer_00-avg.npy'):
        np.save(cache.folder / name, objects, allow_pickle=True)
    with pytest.raises(ValueError, match='Object arrays cannot be loaded'):
        cache.read_labels()
    with pytest.raises(ValueError, match='Python objects in dtype'):
        cache.read((0, 'avg'))
    assert not (tmp_path / 'ran').exists()

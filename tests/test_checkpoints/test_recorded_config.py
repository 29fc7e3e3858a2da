"""What a run's checkpoint says of its model is read, and not executed."""

import pytest
from mmengine.config import Config

from nepa_mm.checkpoints import CheckpointError
from nepa_mm.checkpoints.recorded_config import recorded_model
from tests.golden import ROOT

LEAFS = (
    'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py',
    'classification/nepa_large-p14_8xb128-bf16-coslr-100e_in1k.py',
    'segmentation/nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518.py',
)


def checkpoint(text: str) -> dict:
    return dict(meta=dict(cfg=text))


@pytest.mark.parametrize('leaf', LEAFS)
def test_what_mmengine_writes_is_read(leaf):
    cfg = Config.fromfile(ROOT / 'configs' / leaf)
    assert recorded_model(checkpoint(cfg.pretty_text), 'a.pth') == cfg.to_dict()['model']


@pytest.mark.parametrize('meta', [dict(), dict(cfg=None), dict(cfg='work_dir = "a"\n'), dict(cfg='model = None')])
def test_where_nothing_is_written(meta):
    assert recorded_model(dict(meta=meta), 'a.pth') is None
    assert recorded_model({}, 'a.pth') is None


@pytest.mark.parametrize(
    'text',
    [
        'model = dict(a=open("/etc/hostname").read())',
        'model = dict(**globals())',
        'model = {**globals()}',
        'model = dict([("a", 1)])',
        'model = (lambda: 1)()',
        'model = dict(',
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(CheckpointError, match='a.pth: the config .* cannot be read .*; name the config file instead'):
        recorded_model(checkpoint(text), 'a.pth')

"""A training step of a recipe copies from the host only without waiting: traced on fake tensors of a GPU."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nepa_mm.benchmark import plan_model
from nepa_mm.benchmark.plan_model import _autocast, _FusedAttention, _to_fake
from tests.test_configs import ROOT, shrink

aten = torch.ops.aten
PRETRAIN = 'pretrain/nepa_base-p14_8xb512-bf16-coslr-1600e_in1k'
CLASSIFY = 'classification/nepa_base-p14_8xb128-bf16-coslr-100e_in1k'
UPERNET = 'segmentation/nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518'
LINEAR = 'segmentation/nepa_base-p14_linear_8xb2-bf16-40k_ade20k-518x518'


class HostCopies(TorchDispatchMode):
    """Notes copies between the CPU and a device for which the host waits, as file:function."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in (aten._to_copy, aten.copy_):
            devices = {t.device.type for t in tree_leaves((args, out)) if isinstance(t, torch.Tensor)}
            last = args[2] if len(args) > 2 else False  # copy_(self, src, non_blocking)
            if len(devices) > 1 and not kwargs.get('non_blocking', last):
                self.seen.append(caller())
        return out


def caller() -> str:
    """The innermost function on the stack that is neither torch's nor of what traces."""
    frame = sys._getframe(1)
    while '/torch/' in frame.f_code.co_filename or frame.f_code.co_filename in (__file__, plan_model.__file__):
        frame = frame.f_back
    return f'{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}'


def samples(recipe, size):
    if recipe == PRETRAIN:
        return []
    if recipe == CLASSIFY:
        from mmpretrain.structures import DataSample

        return [DataSample().set_gt_label(torch.tensor([i])) for i in range(2)]
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, *size, dtype=torch.long)
    return [SegDataSample(gt_sem_seg=PixelData(data=labels.clone())) for _ in range(2)]


def copies(recipe, monkeypatch, **preprocessor):
    """Where the second training step of a recipe waits: what is made once is made in the first."""
    # Fake tensors have no pinned memory; a copy from it is one like any other.
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self: self)
    cfg = Config.fromfile(ROOT / 'configs' / f'{recipe}.py')
    shrink(cfg)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.data_preprocessor.update(preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    model.data_preprocessor._non_blocking = True  # as the runner sets it
    model.data_preprocessor._device = torch.device('cuda')
    size = tuple(cfg.model.data_preprocessor.get('size', (28, 28)))
    watch = HostCopies()
    with FakeTensorMode():
        _to_fake(model, 'cuda')
        images = torch.zeros(2, 3, *size, dtype=torch.uint8)
        for context in (nullcontext(), watch):
            batch = dict(
                inputs=list(images) if cfg.default_scope == 'mmseg' else images, data_samples=samples(recipe, size)
            )
            with context, _autocast('cuda'), _FusedAttention():
                data = model.data_preprocessor(batch, True)
                loss, _ = model.parse_losses(model(**data, mode='loss'))
            assert (loss.device.type, loss.requires_grad) == ('cuda', True)
    return set(watch.seen)


@pytest.mark.parametrize('recipe', [PRETRAIN, CLASSIFY, UPERNET, LINEAR])
def test_a_training_step_waits_for_no_copy(recipe, monkeypatch):
    assert copies(recipe, monkeypatch) == set()


@pytest.mark.parametrize(
    ('recipe', 'preprocessor'),
    [(PRETRAIN, 'SelfSupDataPreprocessor'), (CLASSIFY, 'ClsDataPreprocessor'), (UPERNET, 'SegDataPreProcessor')],
)
def test_with_a_preprocessor_of_the_hosts_it_waits(recipe, preprocessor, monkeypatch):
    """That is, the test sees what waits."""
    (where,) = copies(recipe, monkeypatch, type=preprocessor)
    assert where.startswith('data_preprocessor.py:')


def test_with_timms_rope_it_waits(monkeypatch):
    from timm.layers import RotaryEmbeddingDinoV3

    monkeypatch.setattr('nepa_mm.models.backbones.nepa_layers.NEPARope', RotaryEmbeddingDinoV3)
    assert copies(PRETRAIN, monkeypatch) == {'pos_embed_sincos.py:_get_pos_embed_from_coords'}

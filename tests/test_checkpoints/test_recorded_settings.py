"""A backbone that computes something else from weights of the same names and shapes is not loaded in silence."""

import pytest
import torch
from mmengine.config import Config

import nepa_mm
from nepa_mm.checkpoints import CheckpointError, load_weights
from nepa_mm.models import NEPAViT

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def config(**settings) -> Config:
    backbone = dict(type='NEPAViT', arch=ARCH, patch_size=4) | settings
    head = dict(type='NEPAHead', loss=dict(type='NextEmbeddingLoss'))
    return Config(dict(model=dict(type='NEPA', backbone=backbone, head=head), default_scope='mmpretrain'))


@pytest.fixture
def save(tmp_path):
    """Writes what a run with these settings of the backbone would write."""

    def write(**settings):
        cfg = config(**settings)
        weights = NEPAViT(**{k: v for k, v in cfg.model.backbone.items() if k != 'type'}).state_dict()
        path = tmp_path / 'run.pth'
        state_dict = {'backbone.' + k: v for k, v in weights.items()}
        torch.save(dict(state_dict=state_dict, meta=dict(cfg=cfg.pretty_text)), path)
        return path

    return write


def vit(**settings) -> NEPAViT:
    return NEPAViT(**dict(arch=ARCH, patch_size=4) | settings)


FOUR_HEADS = dict(ARCH, num_heads=4)
OTHERS = [
    (dict(), dict(arch=FOUR_HEADS, rope=False), r'num_heads=2 in the checkpoint, 4 in the model'),
    (dict(qk_norm='none'), dict(qk_norm='plain'), r'qk_norm=none in the checkpoint, norm in the model'),
    (dict(qk_norm='none'), dict(qk_norm='affine'), r'qk_norm=none in the checkpoint, norm in the model'),
    (dict(qk_norm='plain'), dict(qk_norm='none'), r'qk_norm=norm in the checkpoint, none in the model'),
]


@pytest.mark.parametrize(('theirs', 'ours', 'told'), OTHERS)
def test_another_function_of_the_same_weights_is_refused(theirs, ours, told, save):
    model = vit(**ours)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=told):
        load_weights(model, save(**theirs))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_api_refuses_it_too(save):
    with pytest.raises(CheckpointError, match='num_heads=2 in the checkpoint, 4 in the model'):
        nepa_mm.get_model(config(arch=FOUR_HEADS, rope=False), save())


def test_plain_qk_norm_fits_affine(save):
    report = load_weights(vit(qk_norm='affine'), save(qk_norm='plain'))
    assert len(report.filled) == 4 and report.altered == []


@pytest.mark.parametrize(
    ('rope', 'told'),
    [
        (dict(base=10.0), 'rope_base=100.0 in the checkpoint, 10.0 in the model'),
        (None, '100.0 in the checkpoint, None'),
    ],
)
def test_other_rope_is_reported(rope, told, save):
    report = load_weights(vit(rope=rope), save())
    assert told in str(report) and len(report.altered) == 1


@pytest.mark.parametrize('same', [dict(), dict(causal=True), dict(rope=dict(rescale=None)), dict(drop_path_rate=0.1)])
def test_what_transfer_changes_on_purpose_is_no_difference(same, save):
    assert load_weights(vit(**same), save()).altered == []


@pytest.mark.parametrize('text', ['model = (', 'x = 1', 'model = dict(backbone=dict(type="Other"))'])
def test_a_config_that_tells_nothing_is_no_obstacle(text, tmp_path):
    path = tmp_path / 'run.pth'
    torch.save(dict(state_dict=vit().state_dict(), meta=dict(cfg=text)), path)
    assert load_weights(vit(), path).altered == []

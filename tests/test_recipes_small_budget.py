"""The small-budget comparison is fair: both starts have the same model, data and budget, on the grid of pretraining."""

import pytest
from mmengine.config import Config

from tests.golden import ROOT

FOLDER = ROOT / 'configs/small_budget'
PRETRAIN = 'nepa_d128l4-p16_1xb8-bf16-coslr-40000it_camvid-photos-192x256'
PRETRAIN_LOW = 'nepa_d128l4-p16_1xb8-bf16-coslr-40000it_camvid-photos-96x128'
FINETUNE = 'd128l4-p16_fcn_1xb8-bf16-150it_camvid-192x256'


def read(name: str) -> dict:
    return Config.fromfile(FOLDER / f'{name}.py').to_dict()


def test_the_two_starts_differ_in_their_weights_alone():
    nepa, scratch = read(f'nepa_{FINETUNE}'), read(f'nepa-scratch_{FINETUNE}')
    start = nepa['model']['backbone'].pop('init_cfg')
    assert start == dict(type='Pretrained', checkpoint=f'work_dirs/{PRETRAIN}/iter_40000.pth')
    assert scratch['model']['backbone'].pop('init_cfg') is None
    assert nepa == scratch
    assert nepa['optim_wrapper']['optimizer']['lr'] == 3e-3
    assert nepa['optim_wrapper']['paramwise_cfg']['layer_decay_rate'] == 1.0
    assert [part['end'] for part in nepa['param_scheduler']] == [15, 150] and nepa['train_cfg']['max_iters'] == 150


def test_pretraining_has_the_backbone_and_the_grid_of_the_fine_tuning():
    pretrain, finetune = read(PRETRAIN), read(f'nepa_{FINETUNE}')
    for key in ('arch', 'patch_size', 'qk_norm', 'mlp', 'rope'):
        assert pretrain['model']['backbone'][key] == finetune['model']['backbone'][key], key
    assert pretrain['model']['backbone']['rope']['rescale'] is None  # one grid for all: nothing to be robust against
    (crop,) = [step for step in pretrain['train_pipeline'] if step['type'] == 'RandomResizedCrop']
    train = finetune['train_dataloader']['dataset']['pipeline']
    (seg_crop,) = [step for step in train if step['type'] == 'RandomCrop']
    assert tuple(crop['scale']) == tuple(seg_crop['crop_size']) == (192, 256)
    (resize,) = [s for s in finetune['val_dataloader']['dataset']['pipeline'] if s['type'] == 'Resize']
    assert tuple(resize['scale']) == (256, 192)
    assert pretrain['train_cfg']['max_iters'] == pretrain['param_scheduler'][-1]['end'] == 40000


def test_half_the_resolution_is_the_only_difference():
    full, low = read(PRETRAIN), read(PRETRAIN_LOW)
    for part in low['train_dataloader']['dataset']['datasets']:
        for step in part.get('dataset', part)['pipeline']:
            if step['type'] == 'RandomResizedCrop':
                assert tuple(step['scale']) == (96, 128)
                step['scale'] = (192, 256)
    for key in ('train_pipeline', 'frames', 'photos'):  # parts of the above
        full.pop(key), low.pop(key)
    assert low == full


@pytest.mark.parametrize('name', [PRETRAIN, PRETRAIN_LOW])
def test_pretraining_never_reads_the_validation_frames(name):
    parts = read(name)['train_dataloader']['dataset']['datasets']
    roots = [part.get('dataset', part)['data_root'] for part in parts]
    assert roots == ['data/camvid/images/train', 'data/photos']

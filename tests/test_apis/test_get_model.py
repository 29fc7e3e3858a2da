"""get_model: weights are loaded as a whole or not at all, and classes have names."""

import pickle
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torch.nn.modules.batchnorm import SyncBatchNorm

import nepa_mm
from nepa_mm.apis.classes import find_dataset_meta, palette_of
from nepa_mm.apis.configs import ConfigNotFoundError
from nepa_mm.apis.model import config_of
from nepa_mm.checkpoints import CheckpointError, to_release
from tests.predictors import save_checkpoint


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def holds(model, expected):
    return all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('name', ['pretrain', 'classify', 'segment'])
def test_every_weight_is_the_checkpoints(site, name, logged):
    model = nepa_mm.get_model(f'{name}.py', f'{name}.pth', device='cpu')
    assert holds(model, weights(f'{name}.pth'))
    assert not model.training and config_of(model).model.type == model.__class__.__name__
    assert f'Loaded {len(model.state_dict())} tensors from {name}.pth.' in logged
    assert not any(isinstance(module, SyncBatchNorm) for module in model.modules())
    assert model.backbone.causal is (name == 'pretrain')


def test_a_config_is_taken_by_name_path_or_object_and_left_as_it_is(site):
    cfg = Config.fromfile('classify.py')
    before = cfg.pretty_text
    model = nepa_mm.get_model(cfg, 'classify.pth', backbone=dict(causal=True))
    assert model.backbone.causal and cfg.pretty_text == before
    assert model._config.model.backbone.causal
    with pytest.raises(ConfigNotFoundError, match="config 'nepa_bass' does not exist"):
        nepa_mm.get_model('nepa_bass', 'classify.pth')


def test_a_data_preprocessor_beside_the_model_is_the_models(site):
    """As in mmpretrain's own configs, and as the runner takes it; without it images would not be normalised."""
    cfg = Config.fromfile('classify.py')
    expected = nepa_mm.classify(nepa_mm.get_model(cfg, 'classify.pth', device='cpu'), 'classes')
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    model = nepa_mm.get_model(cfg, 'classify.pth', device='cpu')
    assert model.data_preprocessor.mean.flatten().tolist() == [127.5] * 3
    found = nepa_mm.classify(model, 'classes')
    assert all((a.scores == b.scores).all() for a, b in zip(found, expected, strict=True))


def test_an_untrained_model_can_be_pickled(site):
    model = nepa_mm.get_model('classify.py', untrained=True, device='cpu')
    assert holds(pickle.loads(pickle.dumps(model)), model.state_dict())


def test_nothing_is_inferred_from_unnoticed_scratch(site, logged):
    with pytest.raises(ValueError, match=r"get_model\('.*classify\.py'\): give the checkpoint, or untrained=True"):
        nepa_mm.get_model('classify.py')
    with pytest.raises(ValueError, match='exclude each other'):
        nepa_mm.get_model('classify.py', 'classify.pth', untrained=True)
    nepa_mm.get_model('classify.py', untrained=True)
    assert 'untrained=True: all weights are random. Predictions mean nothing.' in logged

    start = dict(type='Pretrained', checkpoint='pretrain.pth')
    model = nepa_mm.get_model('classify.py', untrained=True, backbone=dict(init_cfg=start))
    assert 'weights are random, but for those of init_cfg: pretrain.pth' in ' '.join(logged)
    expected = weights('pretrain.pth')
    assert holds(model.backbone, {name.removeprefix('backbone.'): value for name, value in expected.items()})


def test_a_checkpoint_without_the_head_is_refused(site):
    with pytest.raises(CheckpointError, match=r'(?s)pretrain\.pth does not hold every weight .*head\.fc\.weight'):
        nepa_mm.get_model('classify.py', 'pretrain.pth')
    with pytest.raises(CheckpointError, match=r'(?s)have another shape in the checkpoint.*head\.fc\.weight'):
        nepa_mm.get_model('classify.py', 'classify.pth', head=dict(num_classes=5))
    with pytest.raises(CheckpointError, match='does not exist'):
        nepa_mm.get_model('classify.py', 'gone.pth')


def test_raw_and_ema(site, tmp_path):
    """EMAHook swaps on save: state_dict holds the average."""
    average = weights('classify.pth')
    raw = {name: value + 1 for name, value in average.items()}
    torch.save(dict(state_dict=average, ema_state_dict=raw, meta={}), tmp_path / 'both.pth')
    for choice, expected in ((None, average), ('ema', average), ('raw', raw)):
        assert holds(nepa_mm.get_model('classify.py', tmp_path / 'both.pth', weights=choice), expected), choice
    with pytest.raises(CheckpointError, match='holds no EMA weights'):
        nepa_mm.get_model('classify.py', 'classify.pth', weights='ema')


def test_a_release_directory(site, tmp_path):
    expected = weights('classify.pth')
    save_file(to_release(expected), tmp_path / 'model.safetensors')
    assert holds(nepa_mm.get_model('classify.py', tmp_path), expected)


# ---------------------------------------------------------------- names of classes


def test_names_come_from_the_checkpoint_then_from_the_data_set(site, tmp_path, logged):
    model = nepa_mm.get_model('segment.py', 'segment.pth')
    assert model.dataset_meta['classes'] == ('sky', 'road', 'tree')
    assert model.dataset_meta['palette'] == [[0, 0, 250], [250, 0, 0], [0, 250, 0]]
    assert model.dataset_meta['reduce_zero_label'] is True

    mine = dict(classes=['a', 'b', 'c'])
    save_checkpoint(site / 'segment.py', tmp_path / 'a.pth', meta=dict(dataset_meta=mine))
    model = nepa_mm.get_model('segment.py', tmp_path / 'a.pth')
    assert model.dataset_meta['classes'] == ('a', 'b', 'c')
    assert model.dataset_meta['palette'] == palette_of(3), 'none of the data set, whose names are others'

    save_checkpoint(site / 'segment.py', tmp_path / 'b.pth', meta=dict(dataset_meta=dict(classes=['a', 'b'])))
    logged.clear()
    model = nepa_mm.get_model('segment.py', tmp_path / 'b.pth')
    assert model.dataset_meta['classes'] == ('sky', 'road', 'tree')
    assert '2 class names are known (a, b, ...), but the model has 3 classes' in ' '.join(logged)


def test_colours_are_those_that_mmseg_gives(site):
    """Of a data set without a palette."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    cfg = Config.fromfile('segment.py')
    del cfg.test_dataloader.dataset.metainfo['palette']
    expected = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True)).metainfo['palette']
    assert palette_of(3) == expected
    assert find_dataset_meta(cfg, {}, 3)['palette'] == expected


def test_the_data_need_not_be_there(site, tmp_path, monkeypatch):
    cfg = Config.fromfile('segment.py')
    monkeypatch.chdir(tmp_path)
    assert find_dataset_meta(cfg, {}, 3)['classes'] == ('sky', 'road', 'tree')


@pytest.mark.parametrize(
    ('dataset', 'count', 'first', 'reduce_zero_label'),
    [
        (dict(type='ADE20KDataset'), 150, 'wall', True),
        (dict(type='ADE20KDataset', reduce_zero_label=False), 150, 'wall', False),
        (dict(type='PascalVOCDataset', ann_file='no/where.txt'), 21, 'background', False),
        (dict(type='RepeatDataset', dataset=dict(type='CityscapesDataset')), 19, 'road', False),
        (dict(type='ConcatDataset', datasets=[dict(type='CamVidDataset')]), 11, 'sky', False),
        (dict(type='FolderSegDataset', metainfo=dict(classes=('x', 'y'))), 2, 'x', False),
    ],
)
def test_names_of_data_sets_that_are_not_here(dataset, count, first, reduce_zero_label):
    meta = find_dataset_meta(Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset))), {}, count)
    assert (len(meta['classes']), meta['classes'][0]) == (count, first)
    assert meta['reduce_zero_label'] is reduce_zero_label and len(meta['palette']) == count


def test_imagenet_in_words(logged):
    cfg = Config(dict(default_scope='mmpretrain'))
    folders = tuple(ImageNetInfo().label_names())
    for meta in ({}, dict(dataset_meta=dict(classes=folders))):
        classes = find_dataset_meta(cfg, meta, 1000)['classes']
        assert (classes[1], classes[-1]) == (
            'goldfish, Carassius auratus',
            'toilet tissue, toilet paper, bathroom tissue',
        )
        assert ('taken for ImageNet-1k' in ' '.join(logged)) is (not meta)
        logged.clear()
    others = tuple(f'class {i}' for i in range(1000))
    assert find_dataset_meta(cfg, dict(dataset_meta=dict(classes=others)), 1000)['classes'] == others
    assert find_dataset_meta(cfg, {}, 999) == {}


def test_the_order_of_imagenets_words_is_that_of_its_folders():
    """Two lists of two packages."""
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    info = ImageNetInfo()
    heads = [info.index_to_description(i).split(',')[0].lower() for i in range(1000)]
    same = sum(name.split(',')[0].lower() == head for name, head in zip(IMAGENET_CATEGORIES, heads, strict=True))
    assert same > 980


def test_importing_nepa_mm_does_not_import_what_predicts():
    code = (
        'import sys, nepa_mm\n'
        "late = ('nepa_mm.apis.inference', 'nepa_mm.apis.model', 'matplotlib', 'mmseg.models', 'mmpretrain.models')\n"
        'print([name for name in late if name in sys.modules])\n'
        'assert callable(nepa_mm.segment) and set(nepa_mm.__all__) >= {"get_model", "classify"}\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'
    with pytest.raises(AttributeError, match="'nepa_mm' has no attribute 'segments'"):
        nepa_mm.segments  # noqa: B018


def test_a_file_of_names_is_no_list_of_letters():
    dataset = dict(type='CustomDataset', metainfo=dict(classes='a.txt'))
    cfg = Config(dict(default_scope='mmpretrain', test_dataloader=dict(dataset=dataset)))
    assert find_dataset_meta(cfg, {}, len('a.txt')) == {}

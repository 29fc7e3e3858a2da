"""The same models through mmpretrain's and mmseg's own entries."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

import nepa_mm
from nepa_mm.apis import model_hub
from nepa_mm.apis.configs import find_config

SCENES = [f'scenes/images/{i}.png' for i in range(3)]


def test_mmpretrains_inferencers_take_the_model(site):
    from mmpretrain import FeatureExtractor, ImageClassificationInferencer

    model = nepa_mm.get_model('classify.py', 'classify.pth', device='cpu')
    ours = nepa_mm.classify(model, SCENES)
    theirs = ImageClassificationInferencer(model)(SCENES)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.label, a.class_name) == (b['pred_label'], b['pred_class'])
        np.testing.assert_allclose(a.scores, b['pred_scores'], rtol=1e-5)
    pooled = FeatureExtractor(model)(SCENES[0])[0][0]
    torch.testing.assert_close(pooled, nepa_mm.features(model, SCENES[0], pooling='avg')[2])


def test_mmpretrains_get_model_makes_one_that_ours_takes(site):
    from mmpretrain import get_model

    expected = nepa_mm.classify(nepa_mm.get_model('classify.py', 'classify.pth', device='cpu'), SCENES[0])
    result = nepa_mm.classify(get_model('classify.py', pretrained='classify.pth', device='cpu'), SCENES[0])
    np.testing.assert_array_equal(result.scores, expected.scores)


def test_mmsegs_inferencer_takes_the_config(site, tmp_path):
    from mmseg.apis import MMSegInferencer

    ours = nepa_mm.segment(nepa_mm.get_model('segment.py', 'segment.pth', device='cpu'), SCENES)
    inferencer = MMSegInferencer(model='segment.py', weights='segment.pth', device='cpu', show_progress=False)
    theirs = inferencer(SCENES, out_dir=str(tmp_path))['predictions']
    assert all(np.array_equal(a.label_map, b) for a, b in zip(ours, theirs, strict=True))
    assert sorted(p.name for p in (tmp_path / 'vis').iterdir()) == ['0.png', '1.png', '2.png']


def test_mmsegs_functions_take_the_model_and_ours_theirs(site):
    from mmseg.apis import inference_model, init_model

    model = nepa_mm.get_model('segment.py', 'segment.pth', device='cpu')
    ours = nepa_mm.segment(model, SCENES[0]).label_map
    init_default_scope('mmseg')
    for image in (cv2.imread(SCENES[0]), SCENES[0]):
        if isinstance(image, str):
            # mmseg changes the config that it finds in the model: from here on it takes arrays only
            model = nepa_mm.get_model('segment.py', 'segment.pth', device='cpu')
        assert np.array_equal(inference_model(model, image).pred_sem_seg.data[0].numpy(), ours)
        assert np.array_equal(nepa_mm.segment(model, SCENES[0]).label_map, ours)
    theirs = init_model('segment.py', 'segment.pth', device='cpu')
    inference_model(theirs, cv2.imread(SCENES[0]))
    assert np.array_equal(nepa_mm.segment(theirs, SCENES[0]).label_map, ours)


# ---------------------------------------------------------------- mmpretrain's model hub


def test_list_models_has_ours():
    """Those that are in a metafile."""
    from mmpretrain import list_models

    names = list_models('nepa')
    assert set(names) >= {'nepa_base-p14_8xb512-bf16-coslr-1600e_in1k', 'nepa_base-p14_8xb128-bf16-coslr-100e_in1k'}
    assert set(names) <= set(nepa_mm.list_models())
    assert len(list_models('resnet50')) > 3, 'beside their own'


def test_get_model_by_name(tmp_path):
    from mmpretrain import get_model

    def tiny(**settings):
        # `_delete_`: in the config, arch is a name
        arch = dict(_delete_=True, embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
        name = 'nepa_base-p14_8xb128-bf16-coslr-100e_in1k'
        return get_model(name, backbone=dict(arch=arch), head=dict(in_channels=16), **settings)

    model = tiny()
    assert type(model.backbone).__name__ == 'NEPAViT' and model.backbone.num_layers == 2
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    again = tiny(pretrained=str(tmp_path / 'a.pth'))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_index_names_each_config_by_its_file():
    from mmpretrain.apis.model import ModelHub

    model_hub.register_models()
    ours = {name: entry for name, entry in ModelHub._models_dict.items() if name.startswith('nepa')}
    assert ours
    for name, entry in ours.items():
        path = entry.config if isinstance(entry.config, str) else entry.config.filename
        assert find_config(name).samefile(path)


def test_the_hub_is_joined_once(monkeypatch):
    from mmpretrain.apis.model import ModelHub

    calls = []
    monkeypatch.setattr(model_hub, 'register_models', lambda: calls.append('ours'))
    before = ModelHub._register_mmpretrain_models
    model_hub.join_model_hub()
    assert ModelHub._register_mmpretrain_models == before
    ModelHub._register_mmpretrain_models()
    assert calls == ['ours']


@pytest.mark.parametrize('name', ['get_model', 'classify', 'segment', 'features', 'list_models'])
def test_the_package_offers(name):
    assert callable(getattr(nepa_mm, name)) and name in nepa_mm.__all__

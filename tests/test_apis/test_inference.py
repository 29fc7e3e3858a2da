"""classify, segment and features: their values against the runner's and against a forward pass by hand."""

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from mmengine.config import Config

import nepa_mm
from nepa_mm.apis.images import ImageError
from nepa_mm.apis.inference import iter_segment
from nepa_mm.apis.preprocessing import pipeline_of, training_crop
from nepa_mm.engine import NEPARunner
from tests.predictors import SIZES

SCENES = [f'scenes/images/{i}.png' for i in range(3)]


@pytest.fixture(scope='module')
def models(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return {n: nepa_mm.get_model(f'{n}.py', f'{n}.pth', device='cpu') for n in ('pretrain', 'classify', 'segment')}


def by_hand(path, edge=32, crop=28):
    """The evaluation transform in PIL and torch: (1, 3, 28, 28), normalised."""
    image = PIL.Image.open(path).convert('RGB')
    short = min(image.size)
    image = image.resize([edge * side // short for side in image.size], PIL.Image.Resampling.BICUBIC)
    left, top = (round((side - crop) / 2) for side in image.size)
    array = np.array(image.crop((left, top, left + crop, top + crop)), dtype=np.float32)
    return (torch.from_numpy(array).permute(2, 0, 1)[None] - 127.5) / 127.5


def run_tool(config, **settings):
    """What a test run of the config predicts."""
    cfg = Config.fromfile(f'{config}.py')
    cfg.merge_from_dict(settings)
    seen = []

    class Recorder(NEPARunner):
        def call_hook(self, fn_name, **kwargs):
            seen.extend(kwargs.get('outputs') or ())
            super().call_hook(fn_name, **kwargs)

    cfg.load_from, cfg.work_dir, cfg.launcher = f'{config}.pth', 'run', 'none'
    cfg.experiment_name = f'{config}-inference'
    Recorder.from_cfg(cfg).test()
    return seen


# ---------------------------------------------------------------- classification


def test_classify_computes_what_a_test_run_computes(site, models):
    expected = run_tool('classify')
    results = nepa_mm.classify(models['classify'], 'classes')
    assert len(results) == len(expected) == 8
    for result, sample in zip(results, expected, strict=True):
        assert Path(result.path) == Path(sample.img_path)
        assert result.label == sample.pred_label.item()
        np.testing.assert_allclose(result.scores, sample.pred_score, rtol=1e-5)
    assert len({result.label for result in results}) > 1, 'the model tells images apart'


def test_classify_by_hand(site, models):
    path = 'classes/bee/0.png'
    model = models['classify']
    result = nepa_mm.classify(model, path, topk=3)
    with torch.no_grad():
        scores = model.head.fc(model.head.fc_norm(model.backbone(by_hand(path))[0])).softmax(1)[0].numpy()
    np.testing.assert_allclose(result.scores, scores, atol=1e-5)
    order = np.argsort(-scores)[:3]
    assert [score.label for score in result.top] == order.tolist()
    assert [score.class_name for score in result.top] == [('ant', 'bee', 'cat', 'dog')[i] for i in order]
    assert result.class_name == result.top[0].class_name and result.score == pytest.approx(scores.max(), abs=1e-5)
    assert result.to_dict()['top'][0] == dict(label=result.label, score=result.score, class_name=result.class_name)


@pytest.mark.parametrize('name', ['classify', 'segment'])
def test_a_path_an_array_and_a_pil_image_are_the_same_image(site, models, name):
    predict = getattr(nepa_mm, name)
    image = cv2.imread(SCENES[0])
    forms = [SCENES[0], Path(SCENES[0]), image, PIL.Image.open(SCENES[0])]
    results = predict(models[name], forms)
    values = [getattr(result, dict(classify='scores', segment='label_map')[name]) for result in results]
    for value in values[1:]:
        assert np.array_equal(value, values[0])
    assert [result.path for result in results] == [SCENES[0], SCENES[0], None, None]
    single = predict(models[name], image)
    assert np.array_equal(getattr(single, dict(classify='scores', segment='label_map')[name]), values[0])
    # RGB in place of BGR is another image
    other = predict(models[name], image[..., ::-1].copy())
    assert not np.array_equal(getattr(other, dict(classify='scores', segment='label_map')[name]), values[0])


def test_bfloat16(site, models):
    plain, fast = (nepa_mm.classify(models['classify'], SCENES, amp=amp) for amp in (False, True))
    for a, b in zip(plain, fast, strict=True):
        assert not np.array_equal(a.scores, b.scores)
        np.testing.assert_allclose(a.scores, b.scores, atol=0.05)


# ---------------------------------------------------------------- segmentation


def test_segment_computes_what_a_test_run_computes(site, models):
    expected = run_tool('segment')
    results = nepa_mm.segment(models['segment'], 'scenes/images')
    assert len(results) == len(expected) == 3
    for result, sample, size in zip(results, expected, SIZES, strict=True):
        assert result.label_map.shape == size and result.label_map.dtype == np.uint8
        assert np.array_equal(result.label_map, sample.pred_sem_seg.data[0].numpy())
        assert len(result.shares) > 1, 'the model tells pixels apart'


def test_batches_change_nothing(site, models):
    one, many = (nepa_mm.segment(models['segment'], SCENES, batch_size=size) for size in (1, 8))
    assert all(np.array_equal(a.label_map, b.label_map) for a, b in zip(one, many, strict=True))
    one, many = (nepa_mm.classify(models['classify'], SCENES, batch_size=size) for size in (1, 8))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5)
    with pytest.raises(ValueError, match='batch_size=0'):
        nepa_mm.segment(models['segment'], SCENES, batch_size=0)


def test_shares_add_up(site, models):
    result = nepa_mm.segment(models['segment'], SCENES[0])
    counts = {name: (result.label_map == i).mean() for i, name in enumerate(('sky', 'road', 'tree'))}
    assert result.shares == pytest.approx({name: share for name, share in counts.items() if share})
    assert list(result.shares.values()) == sorted(result.shares.values(), reverse=True)
    assert result.to_dict() == dict(path=SCENES[0], height=30, width=44, shares=result.shares)
    drawn = result.draw(cv2.imread(SCENES[0]), opacity=1.0, legend=False)
    assert np.array_equal(drawn[..., ::-1], np.array(result.palette)[result.label_map])


def test_bad_images_are_named_or_left_out(site, models, tmp_path):
    (tmp_path / 'bad.png').write_text('no image')
    images = [SCENES[0], tmp_path / 'bad.png', SCENES[1]]
    with pytest.raises(ImageError, match=r'bad\.png'):
        nepa_mm.segment(models['segment'], images)
    skipped = []
    found = [image for image, _ in iter_segment(models['segment'], images, on_error=lambda *a: skipped.append(a))]
    assert found == [SCENES[0], SCENES[1]]
    assert [image for image, _ in skipped] == [tmp_path / 'bad.png'] and 'bad.png' in str(skipped[0][1])


def test_the_wrong_model_is_named(site, models):
    for name in ('pretrain', 'segment'):
        with pytest.raises(TypeError, match=f'classify needs a classifier .*, but got {type(models[name]).__name__}'):
            nepa_mm.classify(models[name], SCENES[0])
    with pytest.raises(TypeError, match='segment needs a segmentor .*, but got ImageClassifier'):
        nepa_mm.segment(models['classify'], SCENES[0])
    with pytest.raises(ValueError, match='backbone is NoneType'):
        nepa_mm.features(torch.nn.Linear(1, 1), SCENES[0])
    with pytest.raises(ValueError, match='topk=0'):
        nepa_mm.classify(models['classify'], SCENES[0], topk=0)


# ---------------------------------------------------------------- features


@pytest.mark.parametrize('name', ['pretrain', 'classify'])
def test_features_of_every_layer_by_hand(site, models, name):
    """A pretraining has no test pipeline: the size is that of its crops, 28, cut from a shorter side of 32."""
    path, model = 'classes/cat/1.png', models[name]
    found = nepa_mm.features(model, path, layers='all', pooling='tokens')
    assert list(found) == ['embed', 0, 1, 2]
    with torch.no_grad():
        tokens, grid = model.backbone.embed(by_hand(path))
        expected = [tokens, *model.backbone.encode(tokens, grid, (0, 1, 2))]
    for value, tensor in zip(found.values(), expected, strict=True):
        assert value.shape == (50, 16) and value.dtype == torch.float32 and not value.requires_grad
        torch.testing.assert_close(value, tensor[0], atol=1e-5, rtol=0)


def test_features_of_a_segmentor_are_its_backbones(site, models):
    seen = []
    handle = models['segment'].backbone.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    nepa_mm.segment(models['segment'], SCENES[2])
    handle.remove()
    found = nepa_mm.features(models['segment'], SCENES[2])
    assert list(found) == [2]
    torch.testing.assert_close(found[2], seen[0][0])
    assert found[2].shape == (16, *(-(-side // 4) for side in (51, 40)))  # 36 x 28 fitted into 64 x 40


def test_poolings_and_order(site, models):
    model, images = models['classify'], ['classes/ant', 'classes/dog']
    tokens = nepa_mm.features(model, images, layers=(1, -3), pooling='tokens', batch_size=4)
    assert [list(of_image) for of_image in tokens] == [[0, 1]] * 4
    for pooling, pool in (
        ('avg', lambda x: x[1:].mean(0)),
        ('last', lambda x: x[-1]),
        ('bos', lambda x: x[0]),
        ('map', lambda x: x[1:].T.reshape(16, 7, 7)),
    ):
        pooled = nepa_mm.features(model, images, layers=1, pooling=pooling, batch_size=3)
        for a, b in zip(pooled, tokens, strict=True):
            torch.testing.assert_close(a[1], pool(b[1]), atol=1e-5, rtol=0)


def test_attention_of_a_pretraining_can_be_bidirectional(site, models):
    model = models['pretrain']
    causal, both = (nepa_mm.features(model, SCENES[0], pooling='tokens', causal=c)[2] for c in (None, False))
    assert not torch.allclose(causal[1], both[1]), 'the first patch sees more'
    assert model.backbone.causal is True
    with pytest.raises(ValueError, match="'bos' is the same for every image under causal attention"):
        nepa_mm.features(model, SCENES[0], pooling='bos')
    assert nepa_mm.features(model, SCENES[0], pooling='bos', causal=False)[2].shape == (16,)


def test_the_model_is_left_as_it_was(site, models):
    model = models['classify']
    model.train()
    model.backbone.layers[0].eval()
    modes = [module.training for module in model.modules()]
    first = nepa_mm.features(model, SCENES[0])
    assert torch.equal(first[2], nepa_mm.features(model, SCENES[0])[2]), 'no random RoPE rescale'
    nepa_mm.classify(model, SCENES[0])
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_mistakes_in_the_arguments_of_features(site, models):
    for arguments, message in (
        (dict(layers=3), 'layer 3 is neither'),
        (dict(layers=()), 'layers is empty'),
        (dict(pooling='max'), "pooling='max' is unknown; choose one of ['map', 'tokens', 'avg'"),
    ):
        with pytest.raises(ValueError) as error:
            nepa_mm.features(models['classify'], SCENES[0], **arguments)
        assert message in str(error.value)


def test_pipelines():
    load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
    own = dict(dataset=dict(type='X', pipeline=[load, pack]))
    assert pipeline_of(Config(dict(test_dataloader=own))) == [load, pack]
    wrapped = dict(dataset=dict(type='ConcatDataset', datasets=[own['dataset']]))
    assert pipeline_of(Config(dict(val_dataloader=wrapped))) == [load, pack]
    crop = dict(type='RandomResizedCrop', scale=(96, 96))
    train = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='X', pipeline=[load, crop, pack])))
    assert pipeline_of(Config(dict(train_dataloader=train))) == [
        load,
        dict(type='ResizeEdge', scale=110, edge='short', backend='pillow', interpolation='bilinear'),
        dict(type='CenterCrop', crop_size=96),
        pack,
    ]
    train['dataset']['dataset']['pipeline'] = [load, dict(type='RandomCrop', crop_size=64), pack]
    assert [step.get('crop_size') for step in pipeline_of(Config(dict(train_dataloader=train)))] == [
        None,
        None,
        64,
        None,
    ]
    train['dataset']['dataset']['pipeline'] = [load, pack]
    with pytest.raises(ValueError, match='the config has no test pipeline, and no random crop in its'):
        pipeline_of(Config(dict(train_dataloader=train)))


def test_size_and_interpolation_of_training_crops():
    def crop(*steps):
        dataset = dict(type='A', pipeline=list(steps))
        wrapped = dict(type='B', datasets=[dict(type='C', dataset=dataset)])
        return training_crop(Config(dict(train_dataloader=dict(dataset=wrapped))))

    bigger = dict(type='Resize', scale=256)
    assert crop(bigger, dict(type='RandomResizedCrop', scale=64, interpolation='bicubic')) == (64, 'bicubic')
    assert crop(bigger, dict(type='RandomCrop', crop_size=(96, 96))) == (96, 'bilinear')
    torchvisions = dict(type='torchvision/RandomResizedCrop', size=48, scale=(0.2, 1.0))
    assert crop(torchvisions) == (48, 'bilinear')
    assert crop(bigger, dict(type='RandomCrop', crop_size=(96, 64))) is None
    assert training_crop(Config(dict(train_dataloader=None))) is None

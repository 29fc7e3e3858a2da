"""Every way to hand a checkpoint over, the hosts' own functions included, meets every bad checkpoint the same way."""

import argparse
import itertools
import logging
import os

import mmpretrain
import mmseg.apis
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import DATASETS, RUNNERS
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from safetensors.torch import save_file

import nepa_mm
from nepa_mm.apis import cli, run_config, testing
from nepa_mm.checkpoints import CheckpointError
from tests import golden
from tests.test_checkpoints import servers

RUN = itertools.count()
ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
BACKBONE = dict(type='NEPAViT', arch=ARCH, patch_size=4)


@DATASETS.register_module(force=True)
class EntriesTestImages(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b', 'c'))

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return dict(inputs=torch.full((3, 8, 8), 60 * i), data_samples=DataSample().set_gt_label(i % 3))


def classifier(backbone=BACKBONE, classes=3, **kwargs) -> dict:
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
        backbone=backbone | dict(out_type='avg_featmap'),
        head=dict(type='NEPAClsHead', num_classes=classes, in_channels=backbone['arch']['embed_dims'], topk=(1,)),
        **kwargs,
    )


def segmentor() -> dict:
    head = dict(type='FCNHead', in_channels=16, in_index=0, channels=16, num_convs=0, concat_input=False, num_classes=2)
    preprocessor = dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3)
    return dict(
        type='EncoderDecoder',
        data_preprocessor=preprocessor,
        backbone=BACKBONE,
        decode_head=head,
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def config(folder, model=None, **kwargs) -> Config:
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='EntriesTestImages'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    cfg = dict(
        runner_type='NEPARunner',
        custom_imports=dict(imports=['nepa_mm'], allow_failed_imports=False),
        default_scope='mmpretrain',
        visualizer=dict(type='mmseg.SegLocalVisualizer', name=f'entries-{next(RUN)}'),
        experiment_name=f'entries-{next(RUN)}',
        work_dir=str(folder / 'work'),
        model=model or classifier(),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=dict(type='Accuracy', topk=(1,)),
    )
    return Config(cfg | kwargs)


def written(folder, cfg) -> str:
    path = folder / f'config{next(RUN)}.py'
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in cfg.to_dict().items()))
    return str(path)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    """Every runner asks the compilers for their versions and formats its config: far more work than these runs."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(Config, 'pretty_text', property(str))


# ---------------------------------------------------------------------- the entries

TOOL = dict(
    work_dir=None,
    launcher='none',
    cfg_options=None,
    no_pin_memory=False,
    no_persistent_workers=False,
    amp=False,
    auto_scale_lr=False,
    no_validate=False,
    resume=None,
    weights=None,
    out=None,
    out_item=None,
    show=False,
    show_dir=None,
    tta=False,
    interval=1,
    wait_time=0,
    confusion_matrix=None,
)


def init_cfg(path, folder):
    backbone = BACKBONE | dict(init_cfg=dict(type='Pretrained', checkpoint=path))
    RUNNERS.build(config(folder, classifier(backbone))).train()


def init_cfg_of_the_model(path, folder):
    RUNNERS.build(config(folder, classifier(init_cfg=dict(type='Pretrained', checkpoint=path)))).train()


def load_from(path, folder):
    RUNNERS.build(config(folder, load_from=path)).train()


def load_from_of_a_plain_runner(path, folder):
    RUNNERS.build(config(folder, load_from=path, runner_type='Runner')).train()


def init_cfg_of_a_plain_runner(path, folder):
    model = classifier(init_cfg=dict(type='Pretrained', checkpoint=path))
    RUNNERS.build(config(folder, model, runner_type='Runner')).train()


def resume(path, folder):
    args = argparse.Namespace(**TOOL | dict(config=written(folder, config(folder)), resume=path))
    cli.build_runner(run_config.train_config(args, folder)).train()


def evaluation(path, folder):
    args = argparse.Namespace(**TOOL | dict(config=written(folder, config(folder)), checkpoint=path))
    testing.run_test(cli.build_runner(run_config.test_config(args, folder)), args)


def get_model(path, folder):
    return mmpretrain.get_model(config(folder), pretrained=path)


def own_get_model(path, folder):
    return nepa_mm.get_model(config(folder), path, device='cpu')


def inferencer(path, folder):
    model = MODELS.build(classifier())
    model._config = config(folder)
    model._config.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    return mmpretrain.ImageClassificationInferencer(model, pretrained=path).model


def init_model(path, folder):
    return mmseg.apis.init_model(config(folder, segmentor(), default_scope='mmseg'), path, device='cpu')


def mmseg_inferencer(path, folder):
    cfg = config(folder, segmentor(), default_scope='mmseg')
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    cfg.test_dataloader.pop('collate_fn')  # an inferencer has its own
    return mmseg.apis.MMSegInferencer(cfg, weights=path, device='cpu').model


def mmengines_load_checkpoint(path, folder):
    model = MODELS.build(classifier())
    load_checkpoint(model, path)
    return model


def mmengines_pretrained_init(path, folder):
    model = BaseModule(init_cfg=dict(type='Pretrained', checkpoint=path))
    model.backbone = MODELS.build(BACKBONE)
    model.init_weights()
    return model


TRAIN = [
    init_cfg,
    init_cfg_of_the_model,
    load_from,
    load_from_of_a_plain_runner,
    init_cfg_of_a_plain_runner,
    resume,
    evaluation,
]
API = [
    own_get_model,
    get_model,
    inferencer,
    init_model,
    mmseg_inferencer,
    mmengines_load_checkpoint,
    mmengines_pretrained_init,
]


# ---------------------------------------------------------------------- the bad checkpoints


class Payload:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / 'ran'),)


def whole(model=None) -> dict:
    """A run's checkpoint."""
    meta = dict(epoch=1, iter=2, dataset_meta=dict(classes=('a', 'b', 'c')))
    state_dict = MODELS.build(model or classifier()).state_dict()
    return dict(state_dict=state_dict, meta=meta, optimizer={}, message_hub=dict())


def save(folder, content) -> str:
    path = folder / f'checkpoint{next(RUN)}.pth'
    torch.save(content, path)
    return str(path)


def renamed(folder):
    checkpoint = whole()
    checkpoint['state_dict'] = {f'student.encoder.{k}': v for k, v in checkpoint['state_dict'].items()}
    return save(folder, checkpoint)


def truncated(folder):
    path = save(folder, whole())
    with open(path, 'r+b') as stream:
        stream.truncate(os.path.getsize(path) - 500)
    return path


def web_page(folder):
    (folder / 'page.pth').write_text('<!DOCTYPE html><html>404</html>')
    return str(folder / 'page.pth')


BAD = {
    'another prefix': (renamed, 'Nothing of .* fits the model, which would train from scratch unnoticed'),
    'another architecture': (
        lambda folder: save(folder, whole(classifier(BACKBONE | dict(arch=ARCH | dict(num_layers=3))))),
        'does not fit the backbone; it was made with another one',
    ),
    'no path': (lambda folder: '', 'checkpoint path is empty'),
    'no file': (lambda folder: str(folder / 'none.pth'), 'none.pth.* does not exist'),
    'cut short': (truncated, 'damaged or cut short'),
    'web page': (web_page, 'is a web page or XML'),
    'code': (lambda folder: save(folder, whole() | dict(x=Payload(folder))), 'could run code'),
    'code without weights': (lambda folder: save(folder, Payload(folder)), 'could run code'),
}


# To these an empty path is no checkpoint, before any loading; docs/checkpoints.md says so.
TAKE_NOTHING = (get_model, mmseg_inferencer)
PAIRS = [(e, n) for e in TRAIN + API for n in BAD if n != 'no path' or e not in TAKE_NOTHING]


@pytest.mark.parametrize(('entry', 'name'), PAIRS, ids=lambda value: getattr(value, '__name__', value))
def test_a_bad_checkpoint_is_refused(entry, name, tmp_path):
    make, message = BAD[name]
    with pytest.raises((CheckpointError, cli.UsageError), match=message):
        entry(make(tmp_path), tmp_path)
    assert not (tmp_path / 'ran').exists()


# A head of another class count: refused where nothing will train it, counted and named where it is a start.


@pytest.mark.parametrize('entry', [resume, evaluation, own_get_model], ids=lambda f: f.__name__)
def test_another_head_is_refused(entry, tmp_path):
    path = save(tmp_path, whole(classifier(classes=5)))
    with pytest.raises(CheckpointError, match='2 have another shape.*: head.fc.weight, head.fc.bias'):
        entry(path, tmp_path)


@pytest.mark.parametrize('entry', TRAIN[:-2] + API[1:], ids=lambda f: f.__name__)
def test_another_head_is_counted_and_named(entry, tmp_path, log, capsys):
    path = save(tmp_path, whole(classifier(classes=5)))
    entry(path, tmp_path)
    said = '\n'.join(text for _, text in log) + capsys.readouterr().out
    if entry in (init_model, mmseg_inferencer):
        assert '2 are not in the checkpoint and keep their initial values: decode_head.conv_seg.weight' in said
    elif entry in (init_cfg, mmengines_pretrained_init):  # the backbone alone
        assert '4 of the checkpoint have no place in the model and were not used: head.fc.weight' in said
    else:
        assert '2 have another shape in the checkpoint and keep their initial values: head.fc.weight' in said


def test_a_start_from_weights_alone_is_no_resuming(tmp_path):
    path = save(tmp_path, whole()['state_dict'])
    with pytest.raises(CheckpointError, match='holds no meta and no optimizer, so no run can be resumed from it'):
        resume(path, tmp_path)


def test_text_of_a_config_in_a_checkpoint_does_not_run(tmp_path):
    """What mmengine's predecessor saved as ``meta['config']``, mmengine's Runner.resume executes."""
    RUNNERS.build(config(tmp_path)).train()
    checkpoint = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)
    checkpoint['meta']['config'] = f'import os\nos.mkdir({str(tmp_path / "ran")!r})\n'
    runner = RUNNERS.build(config(tmp_path, load_from=save(tmp_path, checkpoint), resume=True))
    runner.train()
    assert (runner.epoch, runner.iter) == (1, 2)
    assert not (tmp_path / 'ran').exists()


# ---------------------------------------------------------------------- the good ones, through the hosts' functions


@pytest.fixture
def release(tmp_path):
    """A classifier in the release's format: directory and, on the same machine, hub repository."""
    data = golden.tensors('classify_bidirectional')
    folder = tmp_path / 'release'
    folder.mkdir()
    save_file(golden.part(data, 'state.'), folder / 'model.safetensors')
    backbone = golden.backbone_config(golden.CASES['classify_bidirectional']['config'], causal=False)
    return folder, classifier(backbone, classes=7), data


@pytest.mark.parametrize('where', ['directory', 'file', 'hub', 'url'])
def test_mmpretrains_get_model_takes_the_release(release, where, tmp_path, monkeypatch):
    folder, model, data = release
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    content = (folder / 'model.safetensors').read_bytes()
    answer = servers.hub({'SixAILab/nepa': {'main': {'model.safetensors': content}}})
    with servers.serve(answer) as server:
        servers.use_hub(monkeypatch, server.url, tmp_path / 'hub')
        path = {
            'directory': str(folder),
            'file': str(folder / 'model.safetensors'),
            'hub': 'hf://SixAILab/nepa',
            'url': f'{server.url}/SixAILab/nepa/resolve/main/model.safetensors',
        }[where]
        loaded = mmpretrain.get_model(config(tmp_path, model), pretrained=path)
    torch.testing.assert_close(loaded(data['pixel_values']), data['logits'], atol=1e-5, rtol=0)


@pytest.mark.parametrize('hook', ['mmengine.EMAHook', 'mmpretrain.EMAHook'])
@pytest.mark.parametrize('weights', [None, 'ema'])
def test_a_release_directory_is_tested_whatever_the_hooks_do(release, hook, weights, tmp_path, monkeypatch):
    """An EMA hook copies by name, and tests its copy: it must not have missed the release's names."""
    folder, model, data = release
    torch.save({k: v + 0.5 for k, v in golden.part(data, 'state.').items()}, folder / 'pytorch_model_ema.bin')
    used = []
    hooks = [dict(type=hook, momentum=0.5)]
    runner = RUNNERS.build(config(tmp_path, model, load_from=str(folder), custom_hooks=hooks, test_weights=weights))
    runner.model.backbone.norm.register_forward_pre_hook(lambda norm, _: used.append(norm.weight.detach().clone()))
    samples = [
        dict(inputs=torch.full((3, 56, 56), 60 * i), data_samples=DataSample().set_gt_label(i % 3))
        for i in range(len(runner.test_dataloader.dataset))
    ]
    monkeypatch.setattr(type(runner.test_dataloader.dataset), '__getitem__', lambda self, i: samples[i])
    runner.test()
    expected = data['state.vit_nepa.layernorm.weight'] + (0.5 if weights == 'ema' else 0)
    assert used and all(torch.equal(weight, expected) for weight in used)


@pytest.mark.parametrize('weights', ['raw', 'ema'])
@pytest.mark.parametrize('hook', ['mmengine.EMAHook', 'mmpretrain.EMAHook'])
def test_training_starts_from_the_weights_that_load_from_asks_for(hook, weights, tmp_path):
    """Mmpretrain's hook would start every run from the average."""
    raw, average = (MODELS.build(classifier()).state_dict() for _ in range(2))
    checkpoint = dict(state_dict=average, ema_state_dict={f'module.{k}': v for k, v in raw.items()})
    seen = []
    runner = RUNNERS.build(
        config(
            tmp_path,
            load_from=save(tmp_path, checkpoint),
            load_from_weights=weights,
            custom_hooks=[dict(type=hook, momentum=0.5)],
        )
    )
    runner.model.backbone.norm.register_forward_pre_hook(
        lambda *_: seen.append(runner.model.backbone.cls_token.detach().clone())
    )
    runner.train()
    start = (raw if weights == 'raw' else average)['backbone.cls_token']
    assert torch.equal(seen[0], start)


@pytest.mark.parametrize('weights', [None, 'raw', 'ema'])
@pytest.mark.parametrize('hook', [None, 'mmengine.EMAHook', 'mmpretrain.EMAHook'])
def test_a_test_takes_the_weights_that_are_asked_for(hook, weights, tmp_path):
    raw, average = (MODELS.build(classifier()).state_dict() for _ in range(2))
    checkpoint = dict(state_dict=average, ema_state_dict={f'module.{k}': v for k, v in raw.items()})
    hooks = [dict(type=hook, momentum=0.5)] if hook else []
    cfg = config(tmp_path, load_from=save(tmp_path, checkpoint), custom_hooks=hooks, test_weights=weights)
    runner, used = RUNNERS.build(cfg), []
    runner.model.backbone.norm.register_forward_pre_hook(
        lambda *_: used.append(runner.model.backbone.cls_token.detach().clone())
    )
    runner.test()
    expected = (raw if weights == 'raw' else average)['backbone.cls_token']
    assert used and all(torch.equal(token, expected) for token in used)


def test_models_of_others_load_as_before(tmp_path, log):
    """Mmengine's own loading, warnings included, for what holds no NEPAViT."""
    model = torch.nn.Linear(2, 2)
    load_checkpoint(model, save(tmp_path, dict(state_dict={'weight': torch.ones(2, 2)})), logger='current')
    assert torch.equal(model.weight.data, torch.ones(2, 2))
    assert any(level == logging.WARNING and 'missing keys in source state_dict: bias' in text for level, text in log)

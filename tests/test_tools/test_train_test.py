"""tools/train.py, tools/test.py and their launchers, as users start them."""

import importlib.util
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'

# Imported by the configs below, in this process and in those that the tests start.
DATA = """
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from mmpretrain.structures import DataSample


@DATASETS.register_module(force=True)
class ToolsTestImages(torch.utils.data.Dataset):
    metainfo = dict(classes=('dark', 'middle', 'bright'))

    def __init__(self, length=8):
        noise = np.random.default_rng(0).integers(0, 80, (length, 3, 16, 16), dtype=np.uint8)
        self.labels = [i % 3 for i in range(length)]
        light = np.uint8([80 * label for label in self.labels]).reshape(-1, 1, 1, 1)
        self.images = torch.from_numpy(noise + light)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return dict(inputs=self.images[i], data_samples=DataSample().set_gt_label(self.labels[i]))


@HOOKS.register_module(force=True)
class DtypeProbe(Hook):
    seen = []

    def before_run(self, runner):
        linear = next(m for m in runner.model.modules() if isinstance(m, torch.nn.Linear))
        linear.register_forward_hook(lambda module, args, out: self.seen.append(out.dtype))
"""

BACKBONE = """
backbone = dict(
    type='NEPAViT',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
    patch_size=4,
    layer_scale_init=0.1,
    # no random rescale: runs are compared number by number
    rope=dict(base=100.0, rescale=None),
)
custom_imports = dict(imports=['nepa_mm', 'tools_test_data'], allow_failed_imports=False)
randomness = dict(seed=0)
"""

LOADER = """
loader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type='ToolsTestImages'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
train_dataloader = loader
default_scope = 'mmpretrain'
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=1)
)
"""

# SGD, because AdamW's first steps have the size of the lr whatever the gradient is: where a gradient
# is nothing but rounding, two ways to sum it would go opposite ways.
PRETRAIN = (
    BACKBONE
    + LOADER
    + """
model = dict(type='NEPA', backbone=backbone)
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9), clip_grad=dict(max_norm=1.0)
)
train_cfg = dict(by_epoch=True, max_epochs=3)
auto_scale_lr = dict(base_batch_size=4)
"""
)

CLASSIFY = (
    BACKBONE
    + LOADER
    + """
backbone.update(out_type='avg_featmap')
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=3),
    backbone=backbone,
    head=dict(type='NEPAClsHead', num_classes=3, in_channels=32, topk=(1,)),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3))
param_scheduler = dict(type='PolyLR', by_epoch=False, end=8)
train_cfg = dict(by_epoch=True, max_epochs=2)
val_dataloader = test_dataloader = loader
val_cfg = test_cfg = dict()
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
custom_hooks = [dict(type='DtypeProbe')]
"""
)

SEGMENT = (
    BACKBONE
    + """
import_path = {folder!r}
default_scope = 'mmseg'
backbone.update(out_indices=(1,), out_type='featmap')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, size=(16, 16)
    ),
    backbone=backbone,
    decode_head=dict(
        type='FCNHead', in_channels=32, in_index=0, channels=8, num_convs=1, concat_input=False,
        num_classes=2, norm_cfg=dict(type='SyncBN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=dict(classes=('left', 'right'), palette=[[255, 0, 0], [0, 0, 255]]),
        data_root=import_path,
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        img_suffix='.png',
        pipeline=load,
    ),
)
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='IoUMetric')
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
visualizer = dict(type='SegLocalVisualizer', name='tools-test')
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
"""
)

SRUN = """#!/usr/bin/env bash
# One task of a slurm job, run on this machine.
printf '%s\\n' "$@" > "$SRUN_RECORD"
while [ "${1:0:1}" = - ]; do shift; done
export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST='node[1-2]'
exec "$@"
"""
SCONTROL = '#!/bin/sh\necho 127.0.0.1\n'


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


def weights(path):
    from nepa_mm.checkpoints import read_checkpoint

    return read_checkpoint(path)['state_dict']


def assert_same(path, reference, tolerance):
    got, expected = weights(path), weights(reference)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, atol=tolerance, rtol=0, msg=name)


class Site:
    """A folder with configs, and how to start the tools there."""

    def __init__(self, folder):
        self.folder = folder
        (folder / 'tools_test_data.py').write_text(DATA)
        for name, text in dict(pretrain=PRETRAIN, classify=CLASSIFY).items():
            (folder / f'{name}.py').write_text(text)
        programs = folder / 'bin'
        programs.mkdir()
        for name, text in dict(srun=SRUN, scontrol=SCONTROL).items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.env = os.environ | dict(
            PATH=f'{programs}:{Path(sys.executable).parent}:{os.environ["PATH"]}',
            PYTHONPATH=f'{folder}:{ROOT}',
            OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='',
        )
        for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
            self.env.pop(name, None)

    def start(self, *command, **env):
        """Start a process in the folder."""
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *processes):
        """Output of processes that must succeed."""
        texts = [process.communicate(timeout=600)[0] for process in processes]
        for process, text in zip(processes, texts, strict=True):
            assert process.returncode == 0, text[-3000:]
        return texts

    def run(self, *command, **env):
        """Output of a command that must succeed."""
        return self.finish(self.start(*command, **env))[0]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp('site'))


# ---------------------------------------------------------------- processes: pretraining


@pytest.fixture(scope='module')
def pretrained(site):
    """Work directory of one process at batch 4, started through slurm_train.sh; and its log."""
    log = site.run(
        *(TOOLS / 'slurm_train.sh', 'gpu-queue', 'my job', 'pretrain.py', '--work-dir', 'single'),
        *('--cfg-options', 'train_dataloader.num_workers=1'),
        SRUN_RECORD=str(site.folder / 'srun_train'),
        SRUN_ARGS='--qos=high --time=1:00',
        GPUS='2',
    )
    return site.folder / 'single', log


def test_slurm_train_asks_srun_for_the_job(pretrained, site):
    words = (site.folder / 'srun_train').read_text().splitlines()
    assert words[:9] == [
        '--partition=gpu-queue',
        '--job-name=my job',
        '--gres=gpu:2',
        '--ntasks=2',
        '--ntasks-per-node=2',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
        '--qos=high',
        '--time=1:00',
    ]
    assert words[9:12] == ['python', '-u', str(TOOLS / 'train.py')]
    assert words[12:15] == ['pretrain.py', '--launcher', 'slurm']


def test_start_of_a_run_is_reported(pretrained):
    _, log = pretrained
    assert 'global batch 4 (1 processes x 4 per process x 1 accumulation), base batch 4, lr 0.3' in log
    assert 'No GPU: 1 CPU processes over gloo (the config asks for nccl' in log
    assert 'pin_memory' not in log.split('Config:')[1].split('global batch')[1]


def test_weights_move(pretrained):
    """What the comparisons of runs below stand on."""
    first, last = weights(pretrained[0] / 'epoch_1.pth'), weights(pretrained[0] / 'epoch_3.pth')
    moved = max((last[name] - first[name]).abs().max().item() for name in last)
    assert moved > 1e-2


def test_two_processes_equal_one(pretrained, site):
    """DefaultSampler deals samples out like cards: ranks hold 0, 2 and 1, 3 of the same batch."""
    log = site.run(
        *(TOOLS / 'dist_train.sh', 'pretrain.py', 2, '--work-dir', 'double'),
        *('--cfg-options', 'train_dataloader.batch_size=2'),
    )
    assert 'global batch 4 (2 processes x 2 per process x 1 accumulation)' in log
    assert_same(site.folder / 'double/epoch_3.pth', pretrained[0] / 'epoch_3.pth', 1e-6)


def test_two_nodes_equal_one_process(pretrained, site):
    """Two torchrun agents of one process each, that meet at MASTER_ADDR:PORT."""
    port = free_port()
    words = [TOOLS / 'dist_train.sh', 'pretrain.py', 1, '--work-dir', 'nodes']
    words += ['--cfg-options', 'train_dataloader.batch_size=2']
    nodes = [site.start(*words, NNODES='2', NODE_RANK=str(i), PORT=port, MASTER_ADDR='127.0.0.1') for i in range(2)]
    log = ''.join(site.finish(*nodes))
    assert 'global batch 4 (2 processes x 2 per process x 1 accumulation)' in log
    assert_same(site.folder / 'nodes/epoch_3.pth', pretrained[0] / 'epoch_3.pth', 1e-6)


# ---------------------------------------------------------------- processes: train, resume, test


@pytest.fixture(scope='module')
def classifier(site):
    """Work directory of a classifier of two epochs, and its log."""
    log = site.run(sys.executable, TOOLS / 'train.py', 'classify.py', '--work-dir', 'classify')
    return site.folder / 'classify', log


@pytest.fixture(scope='module')
def accuracy(classifier):
    """What the run measured after its last epoch."""
    scalars = next(classifier[0].glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [v for v in map(json.loads, scalars) if 'accuracy/top1' in v][-1]['accuracy/top1']


def test_training_learns(classifier, accuracy):
    assert accuracy > 60  # chance is 37.5: three of eight
    assert (classifier[0] / 'epoch_2.pth').is_file()


def test_resume_equals_a_run_without_a_break(classifier, site):
    """From the last checkpoint of the work dir, whose note still names its old place."""
    work_dir, _ = classifier
    moved = site.folder / 'moved'
    moved.mkdir()
    (moved / 'epoch_1.pth').write_bytes((work_dir / 'epoch_1.pth').read_bytes())
    (moved / 'last_checkpoint').write_text('/gone/epoch_1.pth')
    log = site.run(sys.executable, TOOLS / 'train.py', 'classify.py', '--work-dir', 'moved', '--resume')
    assert 'resumed epoch: 1, iter: 2' in log
    assert 'Loaded ' in log
    assert_same(moved / 'epoch_2.pth', work_dir / 'epoch_2.pth', 0)


def test_test_measures_what_training_did(classifier, accuracy, site):
    path = classifier[0] / 'epoch_2.pth'
    log = site.run(
        *(sys.executable, TOOLS / 'test.py', 'classify.py', path, '--work-dir', 'tested'),
        *('--out', 'single.pkl'),
    )
    assert f'accuracy/top1: {accuracy:.4f}' in log
    predictions = pickle.loads((site.folder / 'single.pkl').read_bytes())
    right = [int(p['pred_label']) == int(p['gt_label']) for p in predictions]
    assert len(right) == 8
    assert 100 * sum(right) / 8 == accuracy


def test_dist_test_measures_the_same(classifier, accuracy, site):
    path = classifier[0] / 'epoch_2.pth'
    site.run(
        *(TOOLS / 'dist_test.sh', 'classify.py', path, 2, '--work-dir', 'tested2'),
        *('--out', 'double.json', '--out-item', 'metrics'),
    )
    assert json.loads((site.folder / 'double.json').read_text()) == {'accuracy/top1': accuracy}


def test_slurm_test_asks_srun_and_measures_the_same(classifier, accuracy, site):
    path = classifier[0] / 'epoch_2.pth'
    log = site.run(
        *(TOOLS / 'slurm_test.sh', 'queue', 'name', 'classify.py', path, '--work-dir', 'tested3'),
        SRUN_RECORD=str(site.folder / 'srun_test'),
    )
    words = (site.folder / 'srun_test').read_text().splitlines()
    assert words[:4] == ['--partition=queue', '--job-name=name', '--gres=gpu:8', '--ntasks=8']
    assert words[-6:-2] == ['classify.py', str(path), '--launcher', 'slurm']
    assert f'accuracy/top1: {accuracy:.4f}' in log


@pytest.mark.parametrize(
    ('script', 'words'),
    [
        ('dist_train.sh', ['pretrain.py']),
        ('dist_test.sh', ['classify.py', 'epoch_2.pth']),
        ('slurm_train.sh', ['queue', 'name']),
        ('slurm_test.sh', ['queue', 'name', 'classify.py']),
    ],
)
def test_scripts_say_what_is_missing(site, script, words):
    result = subprocess.run([TOOLS / script, *words], env=site.env, capture_output=True, text=True)
    assert result.returncode == 2
    assert f'{script} ' in result.stderr
    assert result.stderr.startswith('usage: ')


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_help_is_quick(site, tool):
    start = time.perf_counter()
    result = subprocess.run([sys.executable, TOOLS / tool, '--help'], env=site.env, capture_output=True, text=True)
    assert time.perf_counter() - start < 2
    assert result.returncode == 0
    assert '--cfg-options' in result.stdout


# ---------------------------------------------------------------- in this process


def load_tool(name):
    """tools/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f'tools_{name}', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(site, monkeypatch):
    """Call a tool's main() here, in the site's folder; a mistake is a SystemExit, not a traceback."""
    monkeypatch.chdir(site.folder)
    monkeypatch.syspath_prepend(str(site.folder))
    for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    calls = iter(range(1000))

    def call(name, *words):
        words = [str(word) for word in words]
        if '--cfg-options' not in words:
            # runs of one second would share their logger and visualizer by name
            words += ['--cfg-options', f'experiment_name=tool-{time.time_ns()}-{next(calls)}']
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *words])
        load_tool(name).main()

    return call


@pytest.fixture
def train_config(site, monkeypatch):
    """What tools/train.py makes of its arguments."""
    from nepa_mm.apis import run_config

    monkeypatch.chdir(site.folder)
    monkeypatch.syspath_prepend(str(site.folder))
    monkeypatch.setenv('LOCAL_RANK', '0')

    def config(*words):
        monkeypatch.setattr(sys, 'argv', ['train.py', *words])
        return run_config.train_config(load_tool('train').parse_args(), ROOT / 'configs')

    return config


def test_a_checkpoint_in_the_home_folder_is_found(train_config, site, monkeypatch):
    """A shell leaves the tilde of --resume=~/a.pth to us; the loader reads it."""
    monkeypatch.setenv('HOME', str(site.folder))
    (site.folder / 'a.pth').touch()
    assert train_config('pretrain.py', '--resume=~/a.pth').load_from == '~/a.pth'


def test_amp_trains_in_bfloat16(tool, site):
    import tools_test_data

    tools_test_data.DtypeProbe.seen.clear()
    tool('train', 'classify.py', '--work-dir', 'amp', '--amp', '--no-validate')
    assert set(tools_test_data.DtypeProbe.seen) == {torch.bfloat16}
    assert len(tools_test_data.DtypeProbe.seen) == 4
    saved = weights(site.folder / 'amp/epoch_2.pth')
    assert {t.dtype for t in saved.values() if t.is_floating_point()} == {torch.float32}


def test_amp_tests_in_bfloat16(tool, classifier):
    import tools_test_data

    for words, dtype in (([], torch.float32), (['--amp'], torch.bfloat16)):
        tools_test_data.DtypeProbe.seen.clear()
        tool('test', 'classify.py', classifier[0] / 'epoch_2.pth', '--work-dir', 'amp', *words)
        assert set(tools_test_data.DtypeProbe.seen) == {dtype}


def test_train_arguments_reach_the_config(train_config, site):
    cfg = train_config('pretrain.py')
    assert cfg.work_dir == './work_dirs/pretrain'
    assert cfg.launcher == 'none'
    assert cfg.train_dataloader.collate_fn == dict(type='default_collate')
    assert cfg.train_dataloader.pin_memory is torch.cuda.is_available()
    assert cfg.train_dataloader.persistent_workers is False  # there are no workers
    assert not cfg.auto_scale_lr.get('enable', False)

    cfg = train_config(
        *('classify.py', '--work-dir', 'w', '--no-validate', '--amp', '--launcher', 'pytorch'),
        *('--cfg-options', 'train_dataloader.num_workers=2', 'optim_wrapper.optimizer.lr=0.5'),
    )
    assert cfg.work_dir == 'w'
    assert (cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator) == (None, None, None)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=0.5)
    assert cfg.launcher == 'pytorch'
    assert cfg.train_dataloader.persistent_workers is True

    words = ['pretrain.py', '--no-persistent-workers', '--no-pin-memory', '--auto-scale-lr']
    cfg = train_config(*words, '--cfg-options', 'train_dataloader.num_workers=2')
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.auto_scale_lr == dict(base_batch_size=4, enable=True)


def test_cfg_options_come_last(train_config):
    cfg = train_config(
        *('classify.py', '--work-dir', 'w', '--amp', '--cfg-options', 'work_dir=x'),
        *('optim_wrapper.type=OptimWrapper', '--cfg-options', 'train_cfg.max_epochs=7'),
    )
    assert (cfg.work_dir, cfg.optim_wrapper.type) == ('x', 'OptimWrapper')
    assert cfg.train_cfg.max_epochs == 7


def test_resume_by_name_and_automatically(train_config, classifier, site):
    path = str(classifier[0] / 'epoch_1.pth')
    cfg = train_config('classify.py', '--resume', path)
    assert (cfg.resume, cfg.load_from) == (True, path)

    cfg = train_config('classify.py', '--resume', '--work-dir', 'classify')
    assert (cfg.resume, cfg.get('load_from'), cfg.auto_resume) == (False, None, True)  # the runner finds it

    # a job that always resumes must not forget its pretrained weights at its first start
    cfg = train_config('classify.py', '--resume', '--work-dir', 'new', '--cfg-options', 'load_from=a')
    assert (cfg.resume, cfg.load_from, cfg.auto_resume) == (False, 'a', True)


def test_a_runner_named_by_the_config_is_built(train_config):
    from mmengine.runner import Runner

    from nepa_mm.apis import cli
    from nepa_mm.engine import NEPARunner

    cfg = train_config('pretrain.py', '--work-dir', 'built')
    assert type(cli.build_runner(cfg)) is NEPARunner
    words = ['--cfg-options', 'runner_type=Runner', f'experiment_name=built-{time.time_ns()}']
    assert type(cli.build_runner(train_config('pretrain.py', *words))) is Runner


@pytest.fixture(scope='module')
def segmentation(site):
    """Config and checkpoint of an untrained segmentor, and two images with their label maps."""
    rng = np.random.default_rng(0)
    for kind in ('img', 'ann'):
        (site.folder / kind).mkdir()
    for name in ('a', 'b'):
        label = np.repeat(np.uint8([[0, 1]]), 16, axis=0).repeat(8, axis=1)
        image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(site.folder / f'img/{name}.png'), image)
        cv2.imwrite(str(site.folder / f'ann/{name}.png'), label)
    (site.folder / 'segment.py').write_text(SEGMENT.replace('{folder!r}', repr(str(site.folder))))

    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site.folder))
        cfg = Config.fromfile(site.folder / 'segment.py')
        init_default_scope('mmseg')
        torch.manual_seed(3)
        model = MODELS.build(cfg.model)
    path = site.folder / 'segment.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def test_out_directory_gets_label_maps_and_show_dir_pictures(tool, segmentation, site):
    tool(
        *('test', 'segment.py', segmentation, '--work-dir', 'seg', '--out', 'maps'),
        *('--show-dir', 'pictures'),
    )
    maps = {path.name: cv2.imread(str(path), 0) for path in (site.folder / 'maps').iterdir()}
    assert sorted(maps) == ['a.png', 'b.png']
    assert all(m.shape == (16, 16) and m.max() <= 1 for m in maps.values())
    # As docs/inference.md says.
    pictures = sorted(path.name for path in (site.folder / 'pictures/vis_data/vis_image').iterdir())
    assert [name.split('.png')[0] for name in pictures] == ['test_a', 'test_b']


def test_tta_averages_the_flips(tool, segmentation, site):
    """cfg-options mean the model inside, and the averaged logits are symmetric in the flip."""
    from mmengine.registry import MODELS

    words = ['test', 'segment.py', segmentation, '--work-dir', 'tta', '--tta', '--out', 'tta.pkl']
    tool(
        *words,
        *('--cfg-options', 'model.test_cfg.mode=slide', 'model.test_cfg.crop_size=(16,16)'),
        *('model.test_cfg.stride=(16,16)', f'experiment_name=tta-{time.time_ns()}'),
    )
    merged = {Path(p['img_path']).stem: p for p in pickle.loads(Path('tta.pkl').read_bytes())}

    from mmengine.config import Config

    model = MODELS.build(Config.fromfile('segment.py').model).eval()
    model.load_state_dict(weights(segmentation))
    image = torch.from_numpy(cv2.imread('img/a.png')).permute(2, 0, 1)
    batch = model.data_preprocessor(dict(inputs=[image, image.flip(-1)]), False)['inputs']
    with torch.no_grad():
        plain, flipped = model.encode_decode(batch, [dict(img_shape=(16, 16))] * 2).softmax(1)
    expected = (plain + flipped.flip(-1)).argmax(0)
    assert torch.equal(merged['a']['pred_sem_seg']['data'][0], expected)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['pretrain.py', '--resume', 'epoch_9.pth'], "checkpoint 'epoch_9.pth' does not exist"),
        (['pretrain.py', '--cfg-options', 'a'], "--cfg-options takes key=value, but got 'a'"),
        (
            ['classify.py', '--auto-scale-lr'],
            "--auto-scale-lr: config 'classify.py' has no auto_scale_lr; add auto_scale_lr=dict(",
        ),
        (['absent.py'], "config 'absent.py' does not exist"),
        (
            ['pretrain.py', '--cfg-options', 'train_dataloader.dataset.data_root=no/where'],
            "train_dataloader.dataset.data_root='no/where' does not exist (seen from ",
        ),
        (['no_data.py'], "config 'no_data.py' has no train_dataloader: nothing to train on"),
        (
            ['pretrain.py', '--amp', '--cfg-options', 'a=1'],
            'optim_wrapper is an OptimWrapper, but it is',
        ),
    ],
)
def test_train_names_the_mistake(tool, site, words, message):
    (site.folder / 'no_data.py').write_text("model = dict(type='NEPA')\n")
    original = (site.folder / 'pretrain.py').read_text()
    if '--amp' in words:
        changed = original.replace('optim_wrapper = dict(', "optim_wrapper = dict(type='Mine',")
        (site.folder / 'mine.py').write_text(changed)
        words = ['mine.py', *words[1:]]
    with pytest.raises(SystemExit) as error:
        tool('train', *words)
    assert str(error.value).startswith('train.py: ')
    assert message in str(error.value)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['classify.py', 'classify/epoch_3.pth'], 'classify holds epoch_'),
        (['classify.py', 'hf://weights'], 'expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION'),
        (['classify.py', 's3://bucket/weights.pth'], 'is no scheme that is read here'),
        (['classify.py', ''], 'checkpoint path is empty'),
        (['classify.py', 'C', '--tta'], 'has no tta_model and no tta_pipeline; add tta_model='),
        (['classify.py', 'C', '--show'], "default_hooks.visualization in the config: dict(type='"),
        (['classify.py', 'C', '--out-item', 'pred'], '--out-item says what goes into --out'),
        (['classify.py', 'C', '--out', 'a.json'], 'predictions go into a .pkl file; metrics need'),
        (['classify.py', 'C', '--out', 'a', '--out-item', 'metrics'], 'metrics go into a file'),
        (['classify.py', 'C', '--out', 'dir'], 'no metric of this config (Accuracy) writes'),
        (['pretrain.py', 'C'], "config 'pretrain.py' has no test_dataloader: nothing to test on"),
    ],
)
def test_test_names_the_mistake(tool, classifier, words, message):
    words = [classifier[0] / 'epoch_2.pth' if word == 'C' else word for word in words]
    with pytest.raises(SystemExit) as error:
        tool('test', *words)
    assert str(error.value).startswith('test.py: ')
    assert message in str(error.value)


@pytest.mark.parametrize('name', ['train', 'test'])
def test_an_environment_without_nepa_mm_is_named(name, tmp_path):
    """The commonest stumble: the virtual environment is not active."""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    words = [sys.executable, '-S', str(ROOT / 'tools' / f'{name}.py'), 'a.py', *(['b.pth'] if name == 'test' else [])]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert f'{name}.py: nepa_mm is not installed for ' in done.stderr
    assert 'source .venv/bin/activate' in done.stderr


def test_a_config_that_does_not_exist_brings_close_names(tmp_path):
    from nepa_mm.apis import cli

    for name in ('pretrain/nepa_base_in1k.py', 'segmentation/upernet_ade20k.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(cli.UsageError, match='did you mean') as error:
        cli.load_config('configs/nepa_bas_in1k.py', tmp_path)
    assert "config 'configs/nepa_bas_in1k.py' does not exist" in str(error.value)
    assert 'pretrain/nepa_base_in1k.py' in str(error.value)
    assert 'upernet' not in str(error.value)
    with pytest.raises(cli.UsageError, match='the configs lie in'):
        cli.load_config('zzz', tmp_path)

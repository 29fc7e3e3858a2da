"""NEPARunner: checkpoints, CPU process groups, and batch sizes."""

import itertools
import logging
import os

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS, RUNNERS
from torch import nn
from torch.nn import functional as F

from nepa_mm.checkpoints import CheckpointError
from nepa_mm.engine import NEPARunner
from nepa_mm.engine.cpu_processes import init_cpu_process_group
from tests.golden import ROOT

RUN = itertools.count()


@DATASETS.register_module(force=True)
class RunnerTestPairs(torch.utils.data.Dataset):
    """Eight vectors with labels."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.full((4,), index / 8.0), labels=torch.tensor(index % 3))


@DATASETS.register_module(force=True)
class ThreadsOfWorkers(torch.utils.data.Dataset):
    """Each sample is the threads of torch and OpenCV in the process that makes it."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([torch.get_num_threads(), cv2.getNumThreads()])


@MODELS.register_module(force=True)
class RunnerTestModel(BaseModel):
    """A backbone and a head, as the loader knows models."""

    def __init__(self, classes=3, width=5, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = nn.Sequential(nn.Linear(4, width), nn.SyncBatchNorm(width))
        self.head = nn.Linear(width, classes)

    def forward(self, inputs, labels, mode='tensor'):
        logits = self.head(self.backbone(inputs))
        return dict(loss=F.cross_entropy(logits, labels)) if mode == 'loss' else [logits]


@HOOKS.register_module(force=True)
class SeenCheckpoints(Hook):
    """Records what the runner shows to hooks."""

    seen: list = []

    def after_load_checkpoint(self, runner, checkpoint):
        self.seen.append(sorted(checkpoint))


def loader(**kwargs):
    return dict(
        dataset=dict(type='RunnerTestPairs'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        **kwargs,
    )


def config(work_dir, **kwargs):
    cfg = dict(
        runner_type='NEPARunner',
        model=dict(type='RunnerTestModel'),
        work_dir=str(work_dir),
        experiment_name=f'runner-test-{next(RUN)}',
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        train_dataloader=loader(batch_size=4),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        randomness=dict(seed=0),
    )
    return Config(cfg | kwargs)


def build(work_dir, **kwargs):
    return RUNNERS.build(config(work_dir, **kwargs))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Work directory of a finished epoch, and its model."""
    folder = tmp_path_factory.mktemp('trained')
    runner = build(folder)
    runner.train()
    return folder / 'epoch_1.pth', runner.model


# ---------------------------------------------------------------- building


def test_built_by_name_and_keeps_the_config(tmp_path):
    runner = build(tmp_path, load_from=None)
    assert type(runner) is NEPARunner
    assert runner.cfg.optim_wrapper.optimizer.lr == 0.1


def test_init_cfg_of_any_model_goes_through_the_checked_loader(trained, tmp_path):
    def start(checkpoint):
        runner = build(tmp_path)
        runner.model.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
        runner._init_model_weights()
        return runner.model.state_dict()

    path, model = trained
    for name, value in start(path).items():
        torch.testing.assert_close(value, model.state_dict()[name])
    torch.save(dict(state_dict={'garbage': torch.zeros(1)}), tmp_path / 'garbage.pth')
    with pytest.raises(CheckpointError, match='Nothing of .*garbage.pth fits the model'):
        start(tmp_path / 'garbage.pth')


def test_an_epoch_without_a_batch_is_named(tmp_path):
    runner = build(tmp_path, train_dataloader=loader(batch_size=16, drop_last=True))
    with pytest.raises(ValueError, match='has 8 images, which give no batch of 16 per process: lower train_dataloader'):
        runner.train()


# ---------------------------------------------------------------- checkpoints


def test_load_from_loads_every_weight_and_reports(trained, tmp_path, log):
    path, model = trained
    runner = build(tmp_path, custom_hooks=[dict(type='SeenCheckpoints')])
    SeenCheckpoints.seen.clear()
    checkpoint = runner.load_checkpoint(str(path))
    for name, tensor in model.state_dict().items():
        assert torch.equal(runner.model.state_dict()[name], tensor), name
    # 2 + 2 affine, 2 + 1 running statistics, 2 of the head
    assert any(text.startswith('Loaded 9 tensors from') and str(path) in text for _, text in log)
    assert SeenCheckpoints.seen == [['message_hub', 'meta', 'optimizer', 'state_dict']]
    assert checkpoint['meta']['epoch'] == 1


def test_load_from_counts_a_head_of_another_class_count(trained, tmp_path, log):
    path, model = trained
    runner = build(tmp_path, model=dict(type='RunnerTestModel', classes=7), load_from=str(path))
    runner.load_or_resume()
    text = next(text for _, text in log if text.startswith('Loaded'))
    assert text.startswith('Loaded 7 tensors')
    assert '2 have another shape in the checkpoint' in text
    assert 'head.weight, head.bias' in text
    assert torch.equal(runner.model.backbone[0].weight, model.backbone[0].weight)


def test_load_from_refuses_another_backbone(trained, tmp_path):
    runner = build(tmp_path, model=dict(type='RunnerTestModel', width=6))
    with pytest.raises(CheckpointError, match='does not fit the backbone'):
        runner.load_checkpoint(str(trained[0]))


def test_resume_goes_on_where_the_run_stopped(trained, tmp_path):
    path, _ = trained
    whole = build(tmp_path / 'whole', train_cfg=dict(by_epoch=True, max_epochs=2))
    whole.train()
    resumed = build(
        tmp_path / 'resumed',
        train_cfg=dict(by_epoch=True, max_epochs=2),
        load_from=str(path),
        resume=True,
    )
    resumed.train()
    assert (resumed.epoch, resumed.iter) == (2, 4)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_resume_refuses_another_head(trained, tmp_path):
    model = dict(type='RunnerTestModel', classes=7)
    runner = build(tmp_path, model=model, load_from=str(trained[0]), resume=True)
    with pytest.raises(CheckpointError, match='every weight is needed here') as error:
        runner.train()
    assert 'head.weight, head.bias' in str(error.value)


def evaluation(path):
    metric = dict(type='DumpResults', out_file_path=str(path))
    return dict(test_dataloader=loader(batch_size=4), test_cfg=dict(), test_evaluator=metric)


def test_test_refuses_a_checkpoint_without_the_head(trained, tmp_path):
    weights = torch.load(trained[0], weights_only=False)['state_dict']
    torch.save({k: v for k, v in weights.items() if 'head' not in k}, tmp_path / 'headless.pth')
    runner = build(tmp_path, load_from=str(tmp_path / 'headless.pth'), **evaluation(tmp_path / 'out.pkl'))
    with pytest.raises(CheckpointError, match='does not hold every weight of the model') as error:
        runner.test()
    assert 'head.weight, head.bias' in str(error.value)


def test_test_accepts_more_than_the_model_needs(trained, tmp_path, log):
    weights = torch.load(trained[0], weights_only=False)['state_dict']
    torch.save(weights | {'auxiliary_head.weight': torch.ones(2)}, tmp_path / 'more.pth')
    runner = build(tmp_path, load_from=str(tmp_path / 'more.pth'), **evaluation(tmp_path / 'out.pkl'))
    runner.test()
    assert any('1 of the checkpoint have no place in the model' in text for _, text in log)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / 'ran'),))

    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta=Payload()), tmp_path / 'evil.pth')
    runner = build(tmp_path / 'work')
    with pytest.raises(CheckpointError, match='could run code'):
        runner.load_checkpoint(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'ran').exists()


@pytest.fixture(scope='module')
def averaged(tmp_path_factory):
    """Checkpoint of a run with EMA: its state_dict holds the average, as mmengine saves it."""
    folder = tmp_path_factory.mktemp('averaged')
    runner = build(folder, custom_hooks=[dict(type='EMAHook', momentum=0.5)])
    runner.train()
    raw = runner.model.head.weight.detach().clone()
    path = folder / 'epoch_1.pth'
    average = torch.load(path, weights_only=False)['state_dict']['head.weight']
    assert not torch.equal(raw, average)
    return path, raw, average


@pytest.mark.parametrize('hook', [False, True])
@pytest.mark.parametrize('weights', ['raw', 'ema'])
def test_load_from_takes_the_weights_that_are_asked_for(averaged, tmp_path, hook, weights, log):
    path, raw, average = averaged
    # mmpretrain's hook swaps the two on loading, mmengine's leaves them
    hooks = [dict(type='mmpretrain.EMAHook', momentum=0.5)] if hook else []
    runner = build(tmp_path, custom_hooks=hooks, load_from_weights=weights)
    runner.call_hook('before_run')
    runner.load_checkpoint(str(path))
    assert torch.equal(runner.model.head.weight, raw if weights == 'raw' else average)
    assert any(f'({weights} weights)' in text for _, text in log)


@pytest.mark.parametrize('hook', [False, True])
def test_resume_takes_the_raw_weights(averaged, tmp_path, hook):
    path, raw, _ = averaged
    hooks = [dict(type='EMAHook', momentum=0.5)] if hook else []
    runner = build(tmp_path, custom_hooks=hooks, load_from=str(path), resume=True)
    runner.train()  # the run is complete: nothing is trained
    assert torch.equal(runner.model.head.weight, raw)


@pytest.mark.parametrize('hook', [False, True])
def test_test_measures_the_average(averaged, tmp_path, hook):
    path, _, average = averaged
    hooks = [dict(type='EMAHook', momentum=0.5)] if hook else []
    used = []
    runner = build(tmp_path, custom_hooks=hooks, load_from=str(path), **evaluation(tmp_path / 'out.pkl'))
    runner.model.head.register_forward_pre_hook(lambda module, _: used.append(torch.equal(module.weight, average)))
    runner.test()
    assert used == [True, True]


# ---------------------------------------------------------------- batch and lr


def rates(runner):
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    return [group['lr'] for group in runner.optim_wrapper.param_groups]


def test_forgotten_auto_scale_lr_is_a_warning(tmp_path, log):
    assert rates(build(tmp_path, auto_scale_lr=dict(base_batch_size=4096))) == [0.1]
    level, text = next(item for item in log if 'global batch' in item[1])
    assert level == logging.WARNING
    assert text.startswith(
        'global batch 4 (1 processes x 4 per process x 1 accumulation), base batch 4096, lr 0.1: '
        'the lr was chosen for another batch and is NOT scaled; pass --auto-scale-lr'
    )


def test_matching_batch_is_information(tmp_path, log):
    assert rates(build(tmp_path, auto_scale_lr=dict(base_batch_size=4))) == [0.1]
    line = 'global batch 4 (1 processes x 4 per process x 1 accumulation), base batch 4, lr 0.1'
    assert (logging.INFO, line) in log


def test_auto_scale_lr_counts_accumulation_and_reaches_every_group(tmp_path, log):
    wrapper = dict(
        accumulative_counts=3,
        optimizer=dict(type='SGD', lr=0.1),
        paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10))),
    )
    runner = build(tmp_path, optim_wrapper=wrapper, auto_scale_lr=dict(base_batch_size=48, enable=True))
    lrs = rates(runner)
    # 4 x 3 / 48 = 1/4; the last entry is where the log reads base_lr
    assert sorted(set(lrs)) == pytest.approx([0.025, 0.25])
    assert lrs[-1] == pytest.approx(0.025)
    line = (
        'global batch 12 (1 processes x 4 per process x 3 accumulation), base batch 48, '
        'lr 0.25 (lowest group 0.025), scaled by 0.25'
    )
    assert (logging.INFO, line) in log


def test_auto_scale_lr_needs_a_base(tmp_path):
    runner = build(tmp_path, auto_scale_lr=dict(enable=True))
    with pytest.raises(ValueError, match='enabled without base_batch_size'):
        rates(runner)


def test_auto_scale_lr_refuses_to_come_after_the_schedulers(tmp_path):
    runner = build(tmp_path, auto_scale_lr=dict(base_batch_size=8, enable=True))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    scheduler = dict(type='LinearLR', start_factor=0.1, begin=0, end=2)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.param_schedulers = runner.build_param_scheduler([scheduler])
    with pytest.raises(RuntimeError, match='before the parameter schedulers are built'):
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)


def test_batch_size_of_a_batch_sampler_counts(tmp_path, log):
    sampler = dict(type='BatchSampler', batch_size=2, drop_last=False)
    rates(build(tmp_path, train_dataloader=loader(batch_sampler=sampler)))
    assert any('global batch 2 (1 processes x 2 per process' in text for _, text in log)


# ---------------------------------------------------------------- CPU process groups


@pytest.fixture
def launched(monkeypatch):
    """Environment of the only process of a torchrun launch; ends the group that a test makes."""
    for name, value in dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT='0').items():
        monkeypatch.setenv(name, value)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason='is about machines without a GPU')
@pytest.mark.parametrize('wrapper', [None, dict(type='MMDistributedDataParallel')])
def test_cpu_group_is_gloo_and_sync_bn_becomes_bn(launched, tmp_path, wrapper, log):
    runner = build(
        tmp_path,
        launcher='pytorch',
        sync_bn='torch',
        model_wrapper_cfg=wrapper,
        env_cfg=dict(dist_cfg=dict(backend='nccl')),
    )
    assert torch.distributed.get_backend() == 'gloo'
    norm = runner.model.module.backbone[1]
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert not isinstance(norm, nn.SyncBatchNorm)
    texts = [text for _, text in log]
    assert 'No GPU: 1 CPU processes over gloo (the config asks for nccl, which needs GPUs).' in texts
    assert (
        'SyncBN needs GPUs: 1 SyncBN layers become BN, each process normalises by its own part of '
        "the batch; sync_bn='torch' is ignored." in texts
    )
    assert runner.cfg.sync_bn == 'torch'
    runner.train()
    assert runner.iter == 2


def test_single_process_run_reverts_sync_bn(tmp_path):
    assert not isinstance(build(tmp_path).model.backbone[1], nn.SyncBatchNorm)


def test_launcher_without_its_environment_is_named(monkeypatch):
    for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r'SLURM_PROCID.*tools/slurm_train.sh'):
        init_cpu_process_group('slurm')


def test_unknown_launcher_is_named():
    with pytest.raises(ValueError, match="but got 'ssh'"):
        init_cpu_process_group('ssh')


def test_address_of_the_first_slurm_host(monkeypatch, launched, tmp_path):
    """Asked of scontrol; if that fails, the error says what to set."""
    for name, value in dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0', SLURM_NODELIST='node[1-2]').items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('MASTER_ADDR')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(RuntimeError, match='set MASTER_ADDR'):
        init_cpu_process_group('slurm')
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$3" = "node[1-2]" ] && echo 127.0.0.1 && echo node2\n')
    scontrol.chmod(0o755)
    init_cpu_process_group('slurm')
    assert os.environ['MASTER_ADDR'] == '127.0.0.1'
    assert torch.distributed.get_world_size() == 1


def test_mpi_environment_is_understood(monkeypatch, launched):
    for name, value in dict(RANK='0', SIZE='1', LOCAL_RANK='0').items():
        monkeypatch.setenv(f'OMPI_COMM_WORLD_{name}', value)
    monkeypatch.setenv('WORLD_SIZE', '5')  # what another launcher has left
    init_cpu_process_group('mpi', timeout=60)
    assert (torch.distributed.get_rank(), torch.distributed.get_world_size()) == (0, 1)


# ---------------------------------------------------------------- data workers


@pytest.fixture
def two_threads():
    """As a process has them on a machine of two cores."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2), cv2.setNumThreads(2)
    yield
    torch.set_num_threads(before[0]), cv2.setNumThreads(before[1])


def test_a_data_worker_has_one_thread(tmp_path, two_threads):
    """With what all configs have of this: OpenCV's threads are inherited by a worker, torch gives it one of its own."""
    env_cfg = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py').env_cfg
    workers = loader(batch_size=4, num_workers=2) | dict(dataset=dict(type='ThreadsOfWorkers'))
    runner = build(tmp_path, env_cfg=env_cfg, train_dataloader=workers)
    threads = torch.cat(list(runner.build_train_loop(runner.cfg.train_cfg).dataloader))
    assert threads.tolist() == [[1, 1]] * 8

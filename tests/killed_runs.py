"""A small run that has everything a resume must bring back, ways to kill it, and a comparison of two ends."""

import itertools
import os
import random
import signal
import stat

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, RUNNERS
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler

from nepa_mm.checkpoints import read_checkpoint
from tests.own_process import run_in_own_process

RUN = itertools.count()


@DATASETS.register_module(force=True)
class DrawnVectors(torch.utils.data.Dataset):
    """Vectors that each of the three generators has a part in."""

    metainfo: dict = {}

    def __init__(self, length=11):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        drawn = [index / self.length, random.random(), np.random.rand(), torch.rand(()).item()]
        return dict(inputs=torch.tensor(drawn), labels=torch.tensor(index % 3))


@DATA_SAMPLERS.register_module(force=True)
class OwnBatches(BatchSampler):
    """Batches that nobody but itself knows the order of."""

    def __iter__(self):
        return iter(list(super().__iter__())[::-1])


@MODELS.register_module(force=True)
class DroppingModel(BaseModel):
    """Draws in the forward pass, too: dropout of torch, noise of numpy, a factor of Python."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, inputs, labels, mode='tensor'):
        if mode != 'loss':
            return [self.head(self.backbone(inputs))]
        noise = torch.from_numpy(np.random.rand(*inputs.shape).astype('f4')) * random.random()
        return dict(loss=F.cross_entropy(self.head(self.backbone(inputs + noise)), labels))


@METRICS.register_module(force=True)
class MeanLogit(BaseMetric):
    """A score that changes with the weights."""

    def process(self, data_batch, data_samples):
        self.results += [logits.mean().item() for logits in data_samples]

    def compute_metrics(self, results):
        return dict(logit=float(np.mean(results)))


@HOOKS.register_module(force=True)
class KillAt(Hook):
    """Ends the process as the kernel does when there is no memory: at once.

    Args:
        iteration (int): When.
        where (str): Name of the hook's method that it happens in.
    """

    priority = 'LOWEST'

    def __init__(self, iteration, where):
        self.iteration = iteration
        setattr(self, where, self._kill)

    def _kill(self, runner, *args, **kwargs):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def config(work_dir, by_epoch, length=11, workers=2, accumulation=3, **kwargs):
    """Config of a run of 12 iterations in epochs of 4, or of 14 iterations without epochs."""
    loader = dict(
        dataset=dict(type='DrawnVectors', length=length),
        batch_size=3,
        collate_fn=dict(type='default_collate'),
    )
    checkpoint = dict(type='SafeCheckpointHook', by_epoch=by_epoch, max_keep_ckpts=2, save_best='logit', rule='greater')
    epochs = dict(type='EpochBasedTrainLoop', max_epochs=3)
    iterations = dict(type='IterBasedTrainLoop', max_iters=14, val_interval=4)
    cfg = dict(
        runner_type='NEPARunner',
        model=dict(type='DroppingModel'),
        work_dir=str(work_dir),
        experiment_name=f'killed-{os.getpid()}-{next(RUN)}',
        default_hooks=dict(
            checkpoint=dict(checkpoint, interval=1 if by_epoch else 4),
            logger=dict(type='LoggerHook', interval=2),
        ),
        custom_hooks=[dict(type='EMAHook', momentum=0.3)],
        log_processor=dict(by_epoch=by_epoch),
        train_dataloader=dict(
            loader,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
        ),
        val_dataloader=dict(loader, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=epochs if by_epoch else iterations,
        val_cfg=dict(),
        val_evaluator=dict(type='MeanLogit'),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.05), accumulative_counts=accumulation, clip_grad=dict(max_norm=1.0)
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
            dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=3, end=14),
        ],
        randomness=dict(seed=3, diff_rank_seed=True),
        auto_resume=True,
    )
    return Config(cfg | kwargs)


def train(cfg):
    """Train and return the runner."""
    runner = RUNNERS.build(cfg)
    runner.train()
    return runner


def train_and_die(cfg, hook=None, in_write=None):
    """Train in a process that is killed by a hook, or in the middle of the n-th file that it writes.

    Args:
        cfg (Config): The run.
        hook (tuple[int, str], optional): Arguments of :class:`KillAt`.
        in_write (int, optional): Number of the write, counted from 0.
    """
    assert run_in_own_process(_train_to_death, cfg, hook, in_write) == -signal.SIGKILL


def _train_to_death(cfg, hook, in_write):
    if hook is not None:
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='KillAt', iteration=hook[0], where=hook[1])]
    if in_write is not None:
        _kill_in_write(in_write)
    train(cfg)


def _kill_in_write(number):
    """Let the process die when half of the bytes of its n-th write are on the disk."""
    fsync, count = os.fsync, itertools.count()

    def dying(handle):
        state = os.fstat(handle)
        if stat.S_ISREG(state.st_mode) and next(count) == number:
            os.ftruncate(handle, state.st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = dying


def assert_same_end(first, second):
    """Compare the last checkpoints of two work directories, bit by bit, and the files that are kept."""
    ends = [sorted(path.name for path in folder.glob('*.pth*')) for folder in (first, second)]
    assert ends[0] == ends[1], ends
    last = [(folder / 'last_checkpoint').read_text().rsplit('/', 1)[-1] for folder in (first, second)]
    assert last[0] == last[1], last
    a, b = (read_checkpoint(folder / last[0]) for folder in (first, second))
    assert set(a) == set(b) >= {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'message_hub'}
    differences = list(_differences(_comparable(a), _comparable(b), ''))
    assert not differences, '\n'.join(differences)


def _comparable(checkpoint):
    """A checkpoint without what a clock decides or what names a folder."""
    hub = checkpoint['message_hub']
    scalars = {k: v.data for k, v in hub['log_scalars'].items() if not k.endswith('time')}
    info = {k: v for k, v in hub['runtime_info'].items() if k not in ('cfg', 'experiment_name')}
    info = {k: v.rsplit('/', 1)[-1] if isinstance(v, str) else v for k, v in info.items()}
    meta = {k: checkpoint['meta'][k] for k in ('epoch', 'iter', 'seed')}
    return {k: v for k, v in checkpoint.items() if k != 'message_hub'} | dict(scalars=scalars, info=info, meta=meta)


def _differences(a, b, where):
    """Places where two nests of containers differ."""
    if isinstance(a, dict):
        if list(a) != list(b):
            yield f'{where}: {list(a)} != {list(b)}'
        for key in a.keys() & b.keys():
            yield from _differences(a[key], b[key], f'{where}/{key}')
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            yield f'{where}: {len(a)} != {len(b)}'
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from _differences(x, y, f'{where}/{i}')
    elif isinstance(a, (torch.Tensor, np.ndarray)):
        same = np.array_equal(np.asarray(a), np.asarray(b)) and a.dtype == b.dtype
        if not same:
            yield f'{where}: {a} != {b}'
    elif a != b:
        yield f'{where}: {a!r} != {b!r}'

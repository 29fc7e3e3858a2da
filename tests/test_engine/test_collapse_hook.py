"""CollapseHook: runs that collapse are named with their cause, and healthy ones are left in peace."""

import itertools
import logging
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, RUNNERS
from mmpretrain.structures import DataSample

from nepa_mm.engine import CollapseHook
from nepa_mm.models import NextEmbeddingLoss

RUN = itertools.count()


@DATASETS.register_module(force=True)
class CollapseTestImages(torch.utils.data.Dataset):
    """Smooth colours with noise, as photographs have them; or one colour, or what another normalisation expects."""

    def __init__(self, kind='photos', length=160):
        self.kind, self.length = kind, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        colours = rng.integers(0, 256, (4, 4, 3)).astype(np.float32)
        image = cv2.resize(colours, (32, 32), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 8, (32, 32, 3))
        image = np.clip(image, 0, 255)
        if self.kind == 'one colour':
            image = np.full_like(image, 90)
        if self.kind == '0 to 1':
            image /= 255
        return dict(inputs=torch.from_numpy(image).permute(2, 0, 1).float(), data_samples=DataSample())


@MODELS.register_module(force=True)
class CollapseTestClassifier(BaseModel):
    """A model without the figures."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(32, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.backbone(inputs / 255).pow(2).mean())


@MODELS.register_module(force=True)
class CollapseTestFigures(CollapseTestClassifier):
    """The figures of each iteration as they are given."""

    def __init__(self, figures):
        super().__init__()
        self.figures = figures

    def forward(self, inputs, data_samples=None, mode='loss'):
        loss, copied, std = self.figures[MessageHub.get_current_instance().get_info('iter')]
        loss = loss + 0 * super().forward(inputs)['loss']
        told = dict(target_mean_norm=0.3, target_std=std, copy_baseline=copied)
        return dict(loss=loss) | {name: torch.tensor(value) for name, value in told.items()}


@pytest.fixture
def said(monkeypatch):
    """What the logger says of collapse."""
    texts = []
    original = MMLogger.callHandlers

    def call_handlers(self, record):
        if 'Collapse, iteration' in record.getMessage() and record.levelno >= logging.WARNING:
            texts.append(record.getMessage())
        original(self, record)

    monkeypatch.setattr(MMLogger, 'callHandlers', call_handlers)
    return texts


def train(
    work_dir, iterations, lr=1e-3, images='photos', model=None, hook=None, checkpoint=None, load_from=None, **loss
):
    cfg = dict(
        runner_type='NEPARunner',
        model=model
        or dict(
            type='NEPA',
            backbone=dict(
                type='NEPAViT',
                arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
                patch_size=4,
                layer_scale_init=1e-5,
            ),
            head=dict(type='NEPAHead', loss=dict(type='NextEmbeddingLoss', **loss)),
        ),
        default_scope='mmpretrain',
        work_dir=str(work_dir),
        experiment_name=f'collapse-{next(RUN)}',
        train_dataloader=dict(
            batch_size=16,
            num_workers=0,
            dataset=dict(type='CollapseTestImages', kind=images),
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
        optim_wrapper=dict(
            type='FiniteOptimWrapper',
            optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.95), fused=True),
            clip_grad=dict(max_norm=1.0),
        ),
        param_scheduler=dict(type='LinearLR', start_factor=0.025, end=40, by_epoch=False),
        log_processor=dict(by_epoch=False),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=5),
            checkpoint=checkpoint,
            collapse=dict(type='CollapseHook', **(hook or {})),
        ),
        randomness=dict(seed=0),
        load_from=load_from,
        resume=load_from is not None,
    )
    runner = RUNNERS.build(Config(cfg))
    runner.train()
    return runner


def test_a_healthy_run_is_left_in_peace(tmp_path, said):
    runner = train(tmp_path, 130, hook=dict(begin=80, patience=20))
    loss, copied = (runner.message_hub.get_scalar(f'train/{name}').data[0] for name in ('loss', 'copy_baseline'))
    assert loss[-20:].mean() < copied[-20:].mean() - 0.03, 'it has learnt something'
    assert (loss[:30] >= copied[:30]).all(), 'and there was a time to warn of, had it lasted'
    assert said == []


def test_targets_that_learn_to_be_predicted(tmp_path, said):
    train(tmp_path, 80, lr=1e-2, stop_gradient=False)
    (direction,) = (text for text in said if 'one way' in text)
    assert 'Likely cause: stop_gradient=False in model.head.loss' in direction
    assert all('stop_gradient=False' in text for text in said)
    iteration = int(direction.split('iteration ')[1].split(':')[0])
    assert 20 < iteration <= 80, 'it began well'


@pytest.mark.parametrize(
    ('images', 'figures'),
    [('one colour', 'mean -0.294 and standard deviation 0:'), ('0 to 1', 'mean -0.996 and standard deviation 0.00')],
)
def test_images_of_one_colour(tmp_path, said, images, figures):
    train(tmp_path, 10, images=images)
    assert 'Collapse, iteration 5: all targets point one way' in said[0]
    assert f'Likely cause: the images. After normalisation a batch has {figures}' in said[0]
    assert len([text for text in said if 'one way' in text]) == 1, 'said once'


def test_each_patch_predicted_from_itself(tmp_path, said):
    train(tmp_path, 30, shift=False, hook=dict(begin=10, patience=10))
    (text,) = said
    assert 'the prediction is next to perfect, though the targets differ' in text
    assert 'Likely cause: shift=False in model.head.loss' in text


def test_layers_that_add_nothing(tmp_path, said):
    train(tmp_path, 40, lr=1e-6, hook=dict(begin=20, patience=10))
    (text,) = said
    assert 'for 10 iterations repeating the current patch would have done as well' in text
    assert 'Likely cause: LayerScale, of which the largest is ' in text


def test_a_learning_rate_that_is_too_high(tmp_path, said):
    train(tmp_path, 25, lr=10.0, hook=dict(begin=20, patience=20))
    (text,) = said
    assert 'repeating the current patch would have done as well' in text
    cause = r'Likely cause: the learning rate, [\d.]+ for a global batch of 16; the paper has .*, here 1.9e-05'
    assert re.search(cause, text)


def test_other_models_are_left_alone(tmp_path, said):
    train(tmp_path, 10, model=dict(type='CollapseTestClassifier'))
    assert said == []


WELL, NO_BETTER = (-0.7, -0.6, 1.0), (-0.5, -0.6, 1.0)


@pytest.mark.parametrize(
    ('rows', 'warned_at'),
    [
        ([WELL] * 5 + [(-0.7, -0.6, 0.05)] * 5 + [(-0.7, -0.6, 0.02)] * 20, [15]),  # the largest spread
        ([WELL] * 2 + [NO_BETTER] * 28, [20]),  # for how long the copy was as good
        ([WELL] * 4 + [(-0.7, -0.6, 0.001)] * 26, [10]),  # what was told already
        ([WELL] * 10 + [(-0.7, -0.6, 0.001)] * 5 + [WELL] * 5 + [(-0.7, -0.6, 0.001)] * 10, [15, 25]),
    ],
)
@pytest.mark.parametrize('iteration', [6, 12, 18])
def test_a_resumed_run_warns_as_it_would_have(tmp_path, said, rows, warned_at, iteration):
    cfg = dict(model=dict(type='CollapseTestFigures', figures=rows), hook=dict(begin=20, patience=20))
    checkpoint = dict(type='SafeCheckpointHook', by_epoch=False, interval=6)
    train(tmp_path / 'unbroken', 30, checkpoint=checkpoint, **cfg)
    expected = list(said)
    assert [int(text.split('iteration ')[1].split(':')[0]) for text in expected] == warned_at
    said.clear()
    train(tmp_path / 'resumed', 30, load_from=str(tmp_path / f'unbroken/iter_{iteration}.pth'), **cfg)
    assert said == [text for text, at in zip(expected, warned_at, strict=True) if at > iteration]


# ---------------------------------------------------------------- the figures alone


@pytest.fixture
def symptoms():
    """The names of what a hook sees in one figure after the other."""

    def see(*rows, loss=None, **kwargs):
        class Run:
            hooks, max_iters, iter = (), 1000, 0

        hook = CollapseHook(**kwargs)
        hook.before_train(Run)
        hook._interval = 10
        for i, (value, mean_norm, std, copied) in enumerate(rows):
            figures = dict(loss=value, target_mean_norm=mean_norm, target_std=std, copy_baseline=copied)
            found = hook._symptoms(10 * (i + 1), figures, loss or NextEmbeddingLoss())
        return list(found)

    return see


def test_the_loss_alone_is_no_sign(symptoms):
    assert symptoms(*[(-0.999, 0.5, 1.0, -0.9)] * 60) == []
    assert symptoms(*[(-0.999, 0.5, 1.0, -0.9)] * 60, loss=NextEmbeddingLoss(shift=False)) == ['itself']


def test_the_spread_is_measured_by_the_largest(symptoms):
    assert symptoms((-0.7, 0.3, 0.002, -0.6)) == []  # small from the start: another unit
    assert symptoms((-0.7, 0.3, 1.0, -0.6), (-0.8, 0.3, 0.04, -0.6)) == []
    assert symptoms((-0.7, 0.3, 1.0, -0.6), (-0.8, 0.3, 0.02, -0.6)) == ['spread']
    assert symptoms((-0.7, 0.3, 0.0, -0.6)) == ['spread']
    assert symptoms((-0.7, 0.9801, 1.0, -0.6)) == ['direction']


def test_the_copy_baseline_has_time_to_be_beaten(symptoms):
    slow = [(-0.5, 0.3, 1.0, -0.6)]
    assert symptoms(*slow * 29, begin=300, patience=100) == []
    assert symptoms(*slow * 30, begin=300, patience=100) == ['copy']
    # The mean counts: one batch may go either way.
    better = [(-0.7, 0.3, 1.0, -0.6)]
    assert symptoms(*better * 30, *slow, begin=300, patience=100) == []
    assert symptoms(*better * 30, *slow * 6, begin=300, patience=100) == ['copy']
    # What is no number says nothing; an update that was left out has warned already.
    assert symptoms(*slow * 30, (float('nan'), 0.3, 1.0, -0.6), begin=300, patience=100) == []
    # Defaults: a tenth and a twentieth of 1000 iterations, but at least 200 and 100.
    assert symptoms(*slow * 19) == []
    assert symptoms(*slow * 20) == ['copy']


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(max_mean_norm=1.0), 'max_mean_norm=1.0 is not between 0 and 1'),
        (dict(min_std=0), 'min_std=0 is not between 0 and 1'),
        (dict(begin=0), 'begin=0 is not positive'),
        (dict(patience=-1), 'patience=-1 is not positive'),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        CollapseHook(**settings)

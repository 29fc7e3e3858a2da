"""LayerWiseCosineLR: every value against the release's, in a real run too, accumulated and resumed."""

import json
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch.utils.data import Dataset

from nepa_mm.checkpoints import to_release
from nepa_mm.engine import AutocastOptimWrapper, LayerWiseCosineLR, NEPARunner
from tests import golden

TOLD = json.loads((golden.GOLDEN / 'lr_schedules.json').read_text())


def optimizer_of(depths=(0,), rate=1.0, lr=1.0):
    """Groups as BackboneLayerDecayConstructor makes them."""
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=lr * rate**k) for k in depths]
    if rate < 1:
        for group, k in zip(groups, depths, strict=True):
            group.update(depth_from_top=k, layer_decay_rate=rate)
    return torch.optim.SGD(groups, lr=lr)


def rates(optimizer, scheduler, steps):
    """Learning rate of every group in every step."""
    found = []
    for _ in range(steps):
        found.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ('name', 'rate', 'options'),
    [
        ('layerwise_warmup', 0.65, dict(layer_wise_warmup=True)),
        ('rising_decay_cosine', 0.35, dict(rise='cosine', layer_decay_end=1.0)),
    ],
)
def test_the_release_s_schedules(name, rate, options):
    told = TOLD[name]
    assert rate == told.get('layer_decay', told.get('layer_decay_start'))
    optimizer = optimizer_of(range(5), rate, lr=6e-3)
    warmup, steps = told['warmup_steps'], told['steps']
    scheduler = LayerWiseCosineLR(optimizer, warmup=warmup, end=steps, by_epoch=False, **options)
    got = torch.tensor(rates(optimizer, scheduler, steps), dtype=torch.float64) / 6e-3
    assert len(told['lr_multiplier']) == steps
    torch.testing.assert_close(got, torch.tensor(told['lr_multiplier'], dtype=torch.float64), atol=1e-6, rtol=0)
    assert scheduler.multiplier(7, 3) == pytest.approx(told['lr_multiplier'][7][3], abs=1e-6)


def test_the_paper_s_rise_is_a_line():
    optimizer = optimizer_of(range(3), 0.35)
    scheduler = LayerWiseCosineLR(optimizer, warmup=4, end=40, by_epoch=False, rise='linear', layer_decay_end=1.0)
    assert scheduler.multiplier(2, 1) == pytest.approx(2 / 4 * (0.35 + 0.65 * 2 / 40))
    half = 0.5 * (1 + math.cos(math.pi * 16 / 36))
    assert rates(optimizer, scheduler, 21)[20] == pytest.approx([half * (0.35 + 0.65 / 2) ** k for k in range(3)])


def test_pretraining_s_schedule():
    """Step/W from exactly 0 to 1 at step W, then half a cosine that would reach 0 after the last step."""
    optimizer = optimizer_of(lr=4.8e-3)
    scheduler = PARAM_SCHEDULERS.build(
        dict(type='LayerWiseCosineLR', warmup=2, end=10, by_epoch=True, convert_to_iter_based=True),
        default_args=dict(optimizer=optimizer, epoch_length=5),
    )
    got = [rate / 4.8e-3 for (rate,) in rates(optimizer, scheduler, 50)]
    assert got[:10] == pytest.approx([step / 10 for step in range(10)], abs=1e-12)
    assert got[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 40)) for step in range(40)], abs=1e-12)


def test_without_warm_up_and_after_the_end():
    optimizer = optimizer_of()
    scheduler = LayerWiseCosineLR(optimizer, begin=2, end=6, by_epoch=False)
    got = [rate for (rate,) in rates(optimizer, scheduler, 8)]
    curve = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert got == pytest.approx([1, 1, *curve, curve[-1], curve[-1]])


def test_a_constant_decay_may_warm_up_globally():
    optimizer = optimizer_of(range(2), 0.5)
    scheduler = LayerWiseCosineLR(optimizer, warmup=4, end=8, by_epoch=False)
    got = rates(optimizer, scheduler, 5)
    assert got == [[f, f / 2] for f in (0, 0.25, 0.5, 0.75, 1)]


@pytest.mark.filterwarnings('error')
def test_a_step_is_an_update():
    """Accumulated over 4 iterations, each update sees the rate it would see without; 22 iterations are 6 updates."""
    optimizer = optimizer_of()
    wrapper = OptimWrapper(optimizer, accumulative_counts=4)
    scheduler = LayerWiseCosineLR(wrapper, warmup=8, end=22, by_epoch=False)
    plain = LayerWiseCosineLR(optimizer_of(), warmup=2, end=6, by_epoch=False)
    assert (scheduler.warmup_steps, scheduler.total_steps) == (2, 6)
    wrapper.initialize_count_status(torch.nn.Module(), 0, 22)
    seen = []
    step = optimizer.step
    optimizer.step = lambda: (seen.append(optimizer.param_groups[0]['lr']), step())
    weight = optimizer.param_groups[0]['params'][0]
    for _ in range(22):
        wrapper.update_params(weight.sum())
        scheduler.step()
    assert seen == [plain.multiplier(i, 0) for i in range(6)]


class Ramp(Dataset):
    metainfo: dict = {}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((2,), index / 8)


class Regression(torch.nn.Module):
    """Three layers, the lower two of them a backbone that knows its depths."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        self.backbone.get_layer_depth = lambda name, prefix: (
            (int(name[len(prefix)]) + 1, 4) if name.startswith(prefix) else (3, 4)
        )
        self.head = torch.nn.Linear(2, 1)

    def train_step(self, data, optim_wrapper):
        with optim_wrapper.optim_context(self):
            loss = (self.head(self.backbone(torch.stack(data))) - 1).square().mean()
        optim_wrapper.update_params(loss)
        return dict(loss=loss)


def run(work_dir, epochs=6, accumulate=1, resume=None, **schedule):
    """Rates of every group in every iteration, and the weights after the last, of a run through NEPARunner."""
    torch.manual_seed(0)
    runner = NEPARunner(
        model=Regression(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Ramp(),
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate'),
        ),
        optim_wrapper=dict(
            type='AutocastOptimWrapper',
            optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.05),
            constructor='BackboneLayerDecayConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5, custom_keys={'head': dict(lr_mult=3.0)}),
            accumulative_counts=accumulate,
        ),
        param_scheduler=[
            dict(type='LayerWiseCosineLR', by_epoch=True, convert_to_iter_based=True, **(dict(end=6) | schedule))
        ],
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook')),
        randomness=dict(seed=0),
        auto_scale_lr=dict(base_batch_size=4, enable=True),
        load_from=resume,
        resume=resume is not None,
        experiment_name=f'{work_dir.name}-{epochs}',
    )
    seen = []
    train_step = runner.model.train_step

    def watched(data, optim_wrapper):
        assert isinstance(optim_wrapper, AutocastOptimWrapper)
        seen.append([g['lr'] for g in sorted(optim_wrapper.optimizer.param_groups, key=lambda g: g['param_names'])])
        return train_step(data, optim_wrapper)

    runner.model.train_step = watched
    runner.train()
    return seen, runner.model.state_dict()


@pytest.mark.parametrize('schedule', [dict(layer_wise_warmup=True), dict(rise='linear', layer_decay_end=1.0)])
def test_a_resumed_run_is_the_same_run(tmp_path, schedule):
    whole, weights = run(tmp_path / 'whole', warmup=2, **schedule)
    first, _ = run(tmp_path / 'cut', epochs=3, warmup=2, **schedule)
    rest, resumed = run(tmp_path / 'cut', warmup=2, resume=str(tmp_path / 'cut' / 'epoch_3.pth'), **schedule)
    assert len(whole) == 24 and first + rest == whole
    assert all(torch.equal(v, resumed[k]) for k, v in weights.items())


def test_scaled_accumulated_and_by_layer(tmp_path):
    """Batch 2 accumulated twice is the base batch of 4; groups: two layers with bias and weight apart, and the head."""
    seen, _ = run(tmp_path / 'a', accumulate=2, warmup=2, layer_wise_warmup=True)
    plain, _ = run(tmp_path / 'b', epochs=3, end=3, warmup=1, layer_wise_warmup=True)
    assert seen[0::2] == seen[1::2]
    # Without accumulation the batch is 2, and --auto-scale-lr halves the rate.
    torch.testing.assert_close(torch.tensor(seen[0::2]) / 2, torch.tensor(plain))
    assert seen[-1][2] < seen[12][2] < 0.1  # the top layer's weights, past their warm-up


def test_fine_tuning_recipe_s_rates_in_every_step():
    """The release's parameters and groups under the release's schedule, through our recipe."""
    groups = json.loads((golden.GOLDEN / 'finetune_param_groups.json').read_text())
    told = TOLD['layerwise_warmup']
    config = golden.CASES['classify_bidirectional']['config']
    model = MMPRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=golden.backbone_config(config, causal=False, out_type='avg_featmap', freeze_patch_embed=True),
            head=dict(type='NEPAClsHead', num_classes=7, in_channels=48),
        )
    )
    recipe = Config.fromfile(golden.ROOT / 'configs/classification/nepa_base-p14_8xb128-bf16-coslr-100e_in1k.py')
    wrapper = build_optim_wrapper(model, recipe.optim_wrapper)
    (schedule,) = recipe.param_scheduler
    # The recipe's 20 of 100 epochs are the fixture's 8 of 40 steps.
    assert schedule.warmup / schedule.end == told['warmup_steps'] / told['steps']
    schedule.update(warmup=told['warmup_steps'], end=told['steps'])
    scheduler = PARAM_SCHEDULERS.build(schedule, default_args=dict(optimizer=wrapper, epoch_length=1))
    names = {id(p): n for n, p in model.named_parameters()}
    wrong = {}
    for step in range(told['steps']):
        got = {names[id(p)]: [[g['lr']]] for g in wrapper.optimizer.param_groups for p in g['params']}
        got = {n: torch.tensor(v * (3 if '.qkv.' in n else 1)) for n, v in got.items()}
        ours = {n: v.flatten().item() for n, v in to_release(got).items()}
        assert set(ours) == set(groups['parameters'])
        for name, values in groups['parameters'].items():
            expected = values['base_lr'] * told['lr_multiplier'][step][values['depth_from_top']]
            if ours[name] != pytest.approx(expected, abs=1e-6 * values['base_lr'], rel=1e-6):
                wrong[step, name] = (ours[name], expected)
        wrapper.optimizer.step()
        scheduler.step()
    assert not wrong


@pytest.mark.parametrize(
    ('options', 'rate', 'message'),
    [
        (dict(by_epoch=True), 1.0, 'add convert_to_iter_based=True'),
        (dict(warmup=11), 1.0, 'warm-up of 11 steps does not fit into 10'),
        (dict(warmup=-1), 1.0, 'warm-up of -1 steps'),
        (dict(rise='linear'), 0.5, 'belong together'),
        (dict(layer_decay_end=1.0), 0.5, 'belong together'),
        (dict(rise='square', layer_decay_end=1.0), 0.5, r"rise is one of \['linear', 'cosine'\]"),
        (dict(rise='linear', layer_decay_end=1.0, layer_wise_warmup=True), 0.5, 'take rise or layer_wise_warmup'),
        (dict(rise='linear', layer_decay_end=1.0), 1.0, "state it in optim_wrapper, constructor='Backbone"),
        (dict(layer_wise_warmup=True), 1.0, "state it in optim_wrapper, constructor='Backbone"),
        (dict(rise='linear', layer_decay_end=0.4), 0.5, 'does not lie between'),
        (dict(layer_decay_rate=0.5), 0.5, 'layer_decay_rate=0.5 is stated in one place only'),
    ],
)
def test_wrong_use(options, rate, message):
    with pytest.raises(ValueError, match=message):
        LayerWiseCosineLR(optimizer_of(range(2), rate), **(dict(end=10, by_epoch=False) | options))


def test_groups_of_two_rates():
    optimizer = optimizer_of(range(2), 0.5)
    optimizer.param_groups[0]['layer_decay_rate'] = 0.65
    with pytest.raises(ValueError, match=r'several layer decay rates: \[0.5, 0.65\]'):
        LayerWiseCosineLR(optimizer, end=10, by_epoch=False)

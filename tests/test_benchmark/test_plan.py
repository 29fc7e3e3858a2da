"""Plans: known lengths, known rates, memory that is what a run keeps, and every config of this repository."""

import argparse
import json
import math
import os
import re
import runpy
import subprocess
import sys

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from nepa_mm.apis.cli import UsageError
from nepa_mm.benchmark import plan as planning
from nepa_mm.benchmark.flops import Flops, vit_flops, vit_shape
from nepa_mm.benchmark.plan import make_plan
from nepa_mm.benchmark.plan_command import run_plan
from nepa_mm.benchmark.plan_gpus import GPUS, gpu_of_device
from nepa_mm.benchmark.plan_memory import training_memory
from nepa_mm.benchmark.plan_model import ModelCount, Step, count_model
from nepa_mm.benchmark.plan_rates import MeasuredError, Rate, estimate_rate, read_rates, work, write_rates
from nepa_mm.benchmark.plan_run import dataset_size, run_length
from nepa_mm.benchmark.plan_text import plan_text
from tests.devices import GPU
from tests.test_configs import LEAFS, ROOT

TOOL = ROOT / 'tools' / 'analysis' / 'plan.py'
MEASURED = ROOT / 'tools' / 'analysis' / 'measured.json'
PATHS = {path.stem: path for path in LEAFS}
BASE = 'nepa-swiglu_base-p14_8xb256-accum2-bf16-coslr-1600e_in1k'
LARGE = 'nepa-swiglu_large-p14_8xb128-accum4-bf16-coslr-800e_in1k'
# One of each kind of model; the rest of the leafs is for the slow run.
KINDS = [
    BASE,
    LARGE,
    'nepa_base-p14_linear-layer6_8xb128-bf16-coslr-90e_in1k',
    'nepa_d192l6-p8_linear_1xb64-bf16-100it_demo-crops-96x96',
    'nepa_d192l6-p8_upernet_1xb8-bf16-500it_camvid-160x160',
    'nepa_d128l4-p16_fcn_1xb8-bf16-150it_camvid-192x256',
]


def load(name: str) -> Config:
    return Config.fromfile(PATHS[name])


@pytest.fixture(scope='module')
def rates():
    return read_rates([MEASURED])


@pytest.fixture
def quick(monkeypatch):
    """Plans without counting the model: what is asked of them does not depend on it."""
    count = ModelCount(100, 100, 90, 10, Flops(0, 0), 10**8, 10**6, 10**7, 0)
    monkeypatch.setattr(planning, 'count_model', lambda *args: count)


# ------------------------------------------------------------------ the paper's runs


@pytest.mark.parametrize(('name', 'days'), [(BASE, 3), (LARGE, 5)])
def test_the_papers_days(name, days, rates, quick):
    plan = make_plan(load(name), 'h100', 8, rates, name)
    assert plan.hours / 24 == pytest.approx(days, rel=0.1)
    assert plan.as_json()['gpu_hours'] == pytest.approx(8 * 24 * days, rel=0.1)
    assert plan.run.global_batch == plan.run.base_batch == 4096
    assert plan.rate.kind == plan.hours_kind == 'published'
    assert plan.notes == ()


def test_half_as_many_gpus_take_twice_as_long_and_are_extrapolated(rates, quick):
    plan = make_plan(load(BASE), 'h100', 4, rates, BASE)
    assert plan.hours / 24 == pytest.approx(6, rel=0.1)
    assert plan.hours_kind == 'extrapolated'
    assert plan.notes == (
        'the lr belongs to a batch of 4096, not of 2048: pass --auto-scale-lr, or accumulate to that batch',
    )


def test_other_models_and_gpus_reach_the_same_share(rates):
    """GELU has fewer FLOPs than the SwiGLU that was published, and an A100 312 of the 989 TFLOP/s."""
    gelu, swiglu = (vit_shape(dict(arch='base', mlp=mlp), (224, 224), causal=True) for mlp in ('gelu', 'swiglu'))
    estimate = estimate_rate(rates, 'a100-80g', gelu, work(gelu), False, True)
    assert estimate.kind == 'extrapolated'
    # Base with GELU is nearest to the base with SwiGLU, not to the large one.
    assert estimate.images_per_second == pytest.approx(990 * 312 / 989 * work(swiglu) / work(gelu))
    assert estimate.source == (
        "18 % of 312 TFLOP/s, as base (swiglu) reached on h100: published, the paper's 3 days on 8 H100"
    )


def test_measured_comes_before_published(rates):
    shape = vit_shape(dict(arch='base', mlp='swiglu'), (224, 224), causal=True)
    ours = Rate('h100', 'base', 'swiglu', 2000, 'measured', 'gpu-check', gpus=1)
    fast = Rate('h100', 'base', 'swiglu', 2500, 'measured', 'gpu-check', compiled=True)
    both = [*rates, ours, fast]
    assert estimate_rate(both, 'h100', shape, work(shape), False, True).images_per_second == 2000
    assert estimate_rate(both, 'h100', shape, work(shape), True, True).images_per_second == 2500
    # A compiled rate of this model still says less of an uncompiled run than nothing measured says.
    other = estimate_rate([*rates, fast], 'h100', shape, work(shape), False, True)
    assert (other.kind, other.images_per_second) == ('published', 990)
    # Fine-tuning is another step: the same share of the same GPU.
    tuned = estimate_rate(both, 'h100', shape, 2 * work(shape), False, False)
    assert (tuned.kind, tuned.images_per_second) == ('extrapolated', pytest.approx(1000))


def test_checkpointing_costs_a_forward_pass():
    plain, cp = (vit_shape(dict(arch='base', with_cp=cp), (224, 224)) for cp in (False, True))
    assert work(cp) / work(plain) == pytest.approx(4 / 3, abs=0.01)


def test_rates_are_read_as_they_were_written(tmp_path):
    rate = Rate('l40s', 'small', 'gelu', 3000.5, 'measured', 'a run', image_size=448, compiled=True)
    write_rates([rate], tmp_path / 'm.json', dict(machine='x'))
    assert read_rates([tmp_path / 'm.json']) == [rate]
    with pytest.raises(MeasuredError, match='does not exist; make gpu-check writes'):
        read_rates([tmp_path / 'absent.json'])
    (tmp_path / 'm.json').write_text('{"rates": [{"gpu": "h100"}]}')
    with pytest.raises(MeasuredError, match='holds no measured rates'):
        read_rates([tmp_path / 'm.json'])
    for wrong in (dict(gpu='k80'), dict(kind='guessed'), dict(images_per_second=0), dict(arch='giant')):
        with pytest.raises(ValueError, match='a rate is|is unknown'):
            Rate(
                **{
                    **dict(gpu='h100', arch='base', mlp='gelu', images_per_second=1, kind='measured', source=''),
                    **wrong,
                }
            )


@pytest.mark.parametrize(
    ('reported', 'key'),
    [
        ('NVIDIA H100 80GB HBM3', 'h100'),
        ('NVIDIA H100 PCIe', 'h100-pcie'),
        ('NVIDIA H100 NVL', None),
        ('NVIDIA H100 80GB HBM3 MIG 1g.10gb', None),
        ('NVIDIA H200', 'h200'),
        ('NVIDIA H200 NVL', None),
        ('NVIDIA GH200 480GB', None),
        ('NVIDIA B200', 'b200'),
        ('NVIDIA A100-SXM4-40GB', 'a100-40g'),
        ('NVIDIA A100 80GB PCIe', 'a100-80g'),
        ('A100-SXM4-40GB', 'a100-40g'),  # without the maker before driver 470
        ('NVIDIA A100-SXM-64GB', None),
        ('NVIDIA A100-SXM4-40GB MIG 3g.20gb', None),
        ('Tesla V100-SXM2-32GB', 'v100'),
        ('Tesla V100-PCIE-16GB', None),
        ('NVIDIA L4', 'l4'),
        ('NVIDIA L40S', 'l40s'),
        ('NVIDIA A10', 'a10'),
        ('NVIDIA A10G', None),
        ('NVIDIA A10-24Q', None),
        ('Tesla T4', 't4'),
        ('NVIDIA RTX A6000', 'a6000'),
        ('GeForce RTX 3090', 'rtx3090'),
        ('NVIDIA GeForce RTX 3090 Ti', None),
        ('NVIDIA GeForce RTX 4090', 'rtx4090'),
        ('NVIDIA GeForce RTX 4090 D', None),
        ('NVIDIA GeForce RTX 4090 Laptop GPU', None),
        ('NVIDIA GeForce RTX 5090', 'rtx5090'),
    ],
)
def test_gpus_are_known_by_what_torch_calls_them(reported, key):
    assert gpu_of_device(reported) == key


# ------------------------------------------------------------------ length


def test_epochs_count_whole_batches_of_every_process():
    """1,281,167 over 8 processes, filled up to 160,146 each, in batches of 512 without the rest."""
    run = run_length(load('nepa_base-p14_8xb512-bf16-coslr-1600e_in1k'), 8)
    assert (run.updates, run.images) == (1600 * 312, 1600 * 312 * 4096)
    cfg = load('nepa_base-p14_8xb128-bf16-coslr-100e_in1k')
    assert run_length(cfg, 3, images=1000).updates == 100 * 2  # 334 each: two batches and a rest
    cfg.train_dataloader.drop_last = False
    run = run_length(cfg, 3, images=1000)
    assert (run.updates, run.images) == (100 * 3, 100 * 3 * 128 * 3)
    assert run.dataset_source == '--images'


def test_iterations_and_accumulation():
    run = run_length(load('nepa_base-p14_upernet_8xb2-bf16-160k_ade20k-518x518'), 4)
    assert (run.length, run.images, run.updates) == ('160000 iterations', 160000 * 8, 160000)
    run = run_length(load(LARGE), 8)
    assert (run.accumulation, run.updates) == (4, 800 * 1251 // 4)


def test_sizes_of_data_sets():
    expected = {
        BASE: 1_281_167,
        'nepa_base-p14_8xb512-bf16-coslr-1600e_in1k-hf': 1_281_167,
        'nepa_base-p14_8xb128-bf16-coslr-100e_in1k': 1_281_167,
        'nepa_base-p14_1xb128-bf16-coslr-100e_in1k-1percent': 12_812,
        'nepa_base-p14_8xb64-bf16-coslr-100e_in1k-10percent': 128_117,
        'nepa_base-p14_upernet_8xb2-bf16-40k_voc12aug-518x518': 10_582,
        'nepa_base-p14_upernet_8xb2-bf16-80k_coco-stuff164k-518x518': 118_287,
        'nepa_base-p14_upernet_4xb2-bf16-80k_cityscapes-770x770': 2_975,
        'nepa_small-p14_1xb256-bf16-coslr-300e_image-folder': None,
    }
    assert {name: dataset_size(load(name).train_dataloader.dataset) for name in expected} == expected
    repeated = dict(type='RepeatDataset', times=3, dataset=dict(type='ADE20KDataset'))
    assert dataset_size(repeated) == 3 * 20_210
    assert dataset_size(dict(type='CustomDataset', data_root='/my/own/train')) is None


def test_an_unknown_number_of_images_gives_hours_per_million(rates, quick):
    name = 'nepa_small-p14_1xb256-bf16-coslr-300e_image-folder'
    plan = make_plan(load(name), 'rtx4090', 1, rates, name)
    assert plan.hours is None and plan.as_json()['gpu_hours'] is None
    text = plan_text(plan)
    assert 'unknown for data/images: pass --images' in text
    assert f'{1e6 / plan.rate.images_per_second / 3600:.2f} hours per million images' in text
    assert make_plan(load(name), 'rtx4090', 1, rates, name, images=10_000).hours == pytest.approx(
        300 * 39 * 256 / plan.rate.images_per_second / 3600
    )


# ------------------------------------------------------------------ memory

TINY = dict(
    type='NEPA',
    backbone=dict(
        type='NEPAViT',
        arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64),
        patch_size=4,
    ),
)


@pytest.mark.parametrize('device', ['cpu', GPU])
@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('with_cp', [False, True])
def test_kept_bytes_are_those_of_a_run(device, amp, with_cp):
    """A real step of a real model, whatever it keeps: the same bytes as on fake tensors."""
    count = count_model(TINY, 'mmpretrain', (16, 24), amp, device)
    model = MODELS.build(dict(TINY, backbone=dict(TINY['backbone'], with_cp=with_cp))).train().to(device)
    assert count.parameters == count.learning == sum(p.numel() for p in model.parameters())
    per_image, once = Step(model, (16, 24), amp, device).kept()
    if with_cp:
        assert count.kept_once_cp == once
        assert per_image < count.kept_per_image_cp == per_image + (count.kept_per_image - per_image) // 3
    else:
        assert (count.kept_per_image, count.kept_once) == (per_image, once)


def test_what_cross_entropy_of_logits_costs_is_in():
    """Logits of a segmentor are resized to the crop in fp32: 64 x 64 x 30 numbers twice, at the least."""
    head = dict(type='FCNHead', in_channels=32, in_index=0, channels=8, num_convs=1, concat_input=False, num_classes=30)
    model = dict(type='EncoderDecoder', backbone=TINY['backbone'], decode_head=head)
    count = count_model(model, 'mmseg', (64, 64), True)
    alone = count_model(dict(model, decode_head=dict(head, num_classes=2)), 'mmseg', (64, 64), True)
    assert count.kept_per_image - alone.kept_per_image >= 28 * 64 * 64 * 4
    # 3 x 3 convolution of 32 to 8 channels on 16 x 16, then 1 x 1 to 30.
    assert count.head_flops.forward == 2 * 256 * (9 * 32 * 8 + 8 * 30)
    assert count.head_flops.training == 3 * count.head_flops.forward


def test_memory_by_hand():
    count = ModelCount(1000, 800, 900, 100, Flops(0, 0), 50_000, 400, 5_000, 0)
    one = training_memory(count, 1, 'AdamW', ema=True)
    assert (one.weights, one.casts, one.gradients, one.buckets, one.optimizer, one.ema) == (
        4000, 400, 3200, 0, 6400, 4000,
    )  # fmt: skip
    assert one.of_batch(3) == one.context + 18_000 + 150_000
    assert one.largest_batch(one.fixed + 149_999) == 2
    assert one.largest_batch(one.fixed - 1) == 0
    assert training_memory(count, 8, 'SGD', ema=False).buckets == 3200
    assert training_memory(count, 8, 'SGD', ema=False).optimizer == 3200
    sharded = training_memory(count, 8, 'AdamW', ema=True, with_cp=True, fsdp=True)
    assert (sharded.weights, sharded.gradients, sharded.buckets) == (500 + 800, 400, 0)
    assert (sharded.optimizer, sharded.ema, sharded.per_image) == (800, 500, 5_000)


def test_what_does_not_fit_is_said(rates, quick):
    name = 'nepa_base-p14_8xb512-bf16-coslr-1600e_in1k'  # 512 x 100 MB
    plan = make_plan(load(name), 'a100-40g', 8, rates, name)
    assert [v.name for v in plan.variants] == ['DDP', 'DDP, checkpointing', 'FSDP', 'FSDP, checkpointing']
    assert plan.variants[0].largest_batch == (40 * 10**9 - plan.variants[0].memory.fixed) // 10**8 < 512
    (note,) = plan.notes
    assert note.startswith('a batch of 512 does not fit into 40 GB as configured: it does with DDP, checkpointing')
    (note,) = make_plan(load(name), 'v100', 16, rates, name).notes[2:]
    told = 'NVIDIA V100 32 GB has no bfloat16 matrix units; its rate is that of float16'
    assert note == f"{told} (optim_wrapper.dtype='float16')", 'AutocastOptimWrapper takes it, and keeps its checks'
    cfg = load(name)
    for wrapper in (
        dict(cfg.optim_wrapper, dtype='float16'),
        dict(type='AmpOptimWrapper', optimizer=cfg.optim_wrapper.optimizer),
    ):
        cfg.optim_wrapper = wrapper
        assert told in make_plan(cfg, 'v100', 16, rates, name).notes


def test_the_variant_of_the_config_comes_first(rates, quick):
    cfg = load(BASE)
    cfg.model.backbone.with_cp = True
    assert [v.name for v in make_plan(cfg, 'h100', 1, rates, BASE).variants] == ['one GPU, checkpointing', 'one GPU']


# ------------------------------------------------------------------ configs and the tool


def check_every_line(name: str, rates: list) -> None:
    plan = make_plan(load(name), 'h100', 8, rates, name)
    backbone = vit_flops(plan.shape)
    assert plan.flops == backbone + plan.count.head_flops
    assert 0 < plan.count.learning <= plan.count.parameters
    assert plan.variants[0].memory.per_image > 0
    if load(name).model.type == 'NEPA':
        assert plan.variants[0].largest_batch >= plan.run.batch_per_gpu, 'a pretraining leaf fits GPUs of 80 GB'
    frozen = plan.shape.frozen_layers == plan.shape.num_layers
    assert plan.flops.training / plan.flops.forward == pytest.approx(1 if frozen else 3, rel=0.05)
    text = plan_text(plan)
    assert name in text and '[extrapolated: counted]' in text and '[formula]' in text
    assert json.loads(json.dumps(plan.as_json()))['count']['parameters'] == plan.count.parameters


@pytest.mark.parametrize('name', KINDS)
def test_kinds(name, rates):
    check_every_line(name, rates)


def test_every_leaf_but_its_model(rates, quick):
    """What is read from the config: sizes, length, memory of what is counted elsewhere."""
    for name in PATHS:
        cfg = load(name)
        plan = make_plan(cfg, 'a100-40g', 2, rates, name)
        loops = (cfg.train_cfg.get('max_epochs'), cfg.train_cfg.get('max_iters'))
        assert plan.run.length in (f'{loops[0]} epochs', f'{loops[1]} iterations')
        assert min(plan.shape.image_size) >= 64 and plan.rate.kind == 'extrapolated'
        assert name in plan_text(plan)
        if name.endswith('in1k') and 'coslr-' in name and loops[0]:
            assert plan.run.images == pytest.approx(1_281_167 * loops[0], rel=0.01)


def told_memory() -> dict[str, int]:
    """GB per GPU in the table of configs/pretrain/README.md, by leaf."""
    text = (ROOT / 'configs' / 'pretrain' / 'README.md').read_text()
    column = next(line for line in text.splitlines() if line.startswith('| config')).split('|').index(' GB per GPU ')
    rows = re.findall(r'^(\| \[[^]]*\]\((\S+)\.py\).*)', text, re.MULTILINE)
    return {name: int(row.split('|')[column]) for row, name in rows}


def test_every_pretraining_leaf_is_told_to_fit_80_gb():
    """That the table tells the plan's figures is for the slow run."""
    told = told_memory()
    assert set(told) == {name for name, path in PATHS.items() if path.parent.name == 'pretrain'}
    assert max(told.values()) <= GPUS['h100'].memory / 1e9 == 80


@pytest.fixture
def counted_once(monkeypatch):
    """Models that several configs share are counted for the first of them."""
    known: dict[str, ModelCount] = {}

    def count_once(model, *args):
        key = repr((dict(model, backbone={k: v for k, v in model.backbone.items() if k != 'init_cfg'}), args))
        if key not in known:
            known[key] = count_model(model, *args)
        return known[key]

    monkeypatch.setattr(planning, 'count_model', count_once)


@pytest.mark.slow
def test_every_leaf(rates, counted_once):
    for name in PATHS:
        check_every_line(name, rates)


@pytest.mark.slow
def test_the_table_tells_the_memory_of_the_plans(rates, counted_once):
    """On as many GPUs as the leaf's name says."""
    for name, gigabytes in told_memory().items():
        gpus = int(re.search(r'_(\d+)xb', name)[1])
        plan = make_plan(load(name), 'h100', gpus, rates, name)
        assert gigabytes == math.ceil(plan.variants[0].memory.of_batch(plan.run.batch_per_gpu) / 1e9), name


def test_parameters_of_the_papers_main_models(rates):
    plan = make_plan(load(BASE), 'h100', 8, rates, BASE)
    assert plan.count.parameters == 113_875_968
    assert plan.flops == vit_flops(plan.shape)  # the loss has no products


def test_what_is_no_plan_is_refused(rates, quick):
    cfg = load(BASE)
    cfg.model.backbone.type = 'ResNet'
    with pytest.raises(UsageError, match="train a NEPAViT, this one has 'ResNet'"):
        make_plan(cfg, 'h100', 8, rates, 'x')
    cfg = load(BASE)
    cfg.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    with pytest.raises(UsageError, match='says the size of an image'):
        make_plan(cfg, 'h100', 8, rates, 'x')


def plan_arguments(*given: str) -> argparse.Namespace:
    """Arguments as tools/analysis/plan.py parses them."""
    tool = runpy.run_path(str(TOOL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['plan.py', *given])
        return tool['parse_args']()


def test_the_command_line(tmp_path, capsys, quick):
    def run(*given: str):
        return run_plan(plan_arguments(*given), ROOT / 'configs', MEASURED)

    name = 'nepa_d192l6-p8_1xb16-bf16-coslr-1000it_demo-scenes-64x64'
    run(name, '--gpus', '1', '--gpu', 'l4', '--json')
    plan = json.loads(capsys.readouterr().out)
    assert (plan['gpu'], plan['gpus'], plan['run']['images']) == ('l4', 1, 16_000)
    assert plan['shape']['embed_dims'] == 192 and plan['rate']['kind'] == 'extrapolated'

    write_rates([Rate('h100', 'base', 'swiglu', 3000, 'measured', 'a run')], tmp_path / 'measured.json', {})
    given = (BASE, '--gpus', '1', '--measured', str(tmp_path / 'measured.json'))
    assert run(*given).hours_kind == 'extrapolated'
    out = capsys.readouterr().out
    assert 'speed            3,000 img/s per GPU  [measured: a run]' in out
    unmeasured = 'clipping, optimizer and average, which are not measured, taken as nothing]'
    assert f'GPU-hours  [extrapolated: {unmeasured}' in out
    run(*given, '--gpus', '8')
    assert f'GPU-hours  [extrapolated: 8 GPUs taken as 8 times one; {unmeasured}' in capsys.readouterr().out
    run(*given, '--gpu', 'a100-80g')
    assert f'GPU-hours  [extrapolated: {unmeasured}' in capsys.readouterr().out, 'from the measured share'
    run(BASE, '--gpus', '8')
    assert 'GPU-hours  [published]' in capsys.readouterr().out, 'the paper measured a whole run'
    longer = run(*given, '--cfg-options', 'train_cfg.max_epochs=3200')
    assert longer.run.length == '3200 epochs'

    for wrong, message in (
        ((BASE, '--gpu', 'k80'), "--gpu 'k80' is unknown; choose one of b200, h200, h100"),
        ((BASE, '--gpus', '0'), '--gpus 0 is not positive'),
        ((BASE, '--images', '0'), '--images 0 is not positive'),
        (('nepa_d192l6',), "config 'nepa_d192l6' does not exist"),
        ((BASE, '--measured', 'absent.json'), "'absent.json' does not exist; make gpu-check writes such a file"),
    ):
        with pytest.raises(UsageError) as error:
            run(*wrong)
        assert str(error.value).startswith(message)


@pytest.mark.slow
def test_the_tool(tmp_path):
    name = 'nepa_d192l6-p8_1xb16-bf16-coslr-1000it_demo-scenes-64x64'
    for gpu, code in (('l4', 0), ('k80', 1)):
        command = [sys.executable, '-W', 'ignore', str(TOOL), name, '--gpu', gpu]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert done.stdout.startswith(f'{name}\non 8 x NVIDIA L4') or 'plan.py: --gpu' in done.stderr


def test_the_tool_names_every_gpu_before_it_imports_anything():
    code = f'import sys, runpy; sys.argv = ["plan.py", "--help"]; runpy.run_path({str(TOOL)!r}, run_name="__main__")'
    code = f'import atexit, sys; atexit.register(lambda: print("torch" in sys.modules)); {code}'
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env=dict(os.environ, COLUMNS='1000')
    )
    assert f'which: {", ".join(GPUS)} (default: h100)' in done.stdout
    assert done.stdout.endswith('False\n')


def test_size_of_the_images_that_a_config_trains_on():
    size = dict(zip(KINDS, [(224, 224), (224, 224), (224, 224), (96, 96), (160, 160), (192, 256)], strict=True))
    size['nepa_large-p14_upernet_8xb2-bf16-160k_ade20k-518x518'] = (518, 518)
    assert {name: planning._image_size(load(name)) for name in size} == size
    assert planning._image_size(ConfigDict(model={}, train_dataloader=dict(dataset=dict(pipeline=[])))) is None

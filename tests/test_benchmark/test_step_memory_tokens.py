"""The step, memory and tokens benchmarks at tiny size: they run what they say, and their figures hold together."""

import argparse

import pytest
import torch

from nepa_mm.benchmark import memory, step, tokens
from nepa_mm.benchmark.flops import vit_flops, vit_shape
from nepa_mm.benchmark.memory_process import measure_in_process
from nepa_mm.benchmark.report import Report
from nepa_mm.benchmark.timm_blocks import predict_with_timm_blocks
from nepa_mm.models import NEPAViT
from tests.flops import flop_counter

TINY = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def arguments(module, *given, out_dir=None):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    args = parser.parse_args(given)
    args.out_dir = out_dir
    return args


@pytest.mark.parametrize('mlp', ['gelu', 'swiglu'])
def test_the_bare_products_are_those_of_the_step(mlp):
    """By FLOPs, counted in both, and by the formula; the step is of timm's blocks: in-place products go uncounted."""
    backbone, images = NEPAViT(arch=TINY, mlp=mlp, causal=True).train(), torch.randn(2, 3, 56, 56)
    counts = []
    for function in (
        step.training_step(backbone, images, torch.float32, predict_with_timm_blocks),
        step.bare_products(backbone, images, torch.float32),
    ):
        with flop_counter() as counter:
            function()
        counts.append(counter.get_total_flops())
    whole_step, bare = counts
    assert bare == whole_step
    formula = vit_flops(vit_shape(dict(arch=TINY, mlp=mlp), (56, 56), causal=True), recompute=True)
    assert bare == 2 * formula.training


def test_step_reports_quotients_beside_seconds():
    args = arguments(
        step, '--arch', 'tiny', '--num-layers', '1', '--img-size', '28', '--batch-size', '1', '--rounds', '2'
    )
    report = step.run(args)
    for dtype in ('fp32', 'bf16'):
        own, bare = report[f'{dtype} step'], report[f'{dtype} products']
        quotients = [a / b for a, b in zip(own.values, bare.values, strict=True)]
        assert report[f'{dtype} step / products'].values == pytest.approx(quotients)
        assert report[f'{dtype} step / products'].target is None, 'the target is of the base model'
    assert report.settings['arch'] == 'tiny' and len(report['fp32 step'].values) == 2


@pytest.mark.parametrize(
    ('given', 'share', 'images'),
    [
        (['--batch-size', '256'], 0.55, 3200),
        (['--arch', 'large', '--batch-size', '128'], 0.60, 1000),
        (['--batch-size', '8'], None, None),  # the default
        (['--arch', 'large', '--batch-size', '64'], None, None),
        (['--batch-size', '256', '--mlp', 'swiglu'], None, None),
        (['--batch-size', '256', '--num-layers', '2'], None, None),
    ],
)
def test_targets_of_a_gpu_are_those_of_the_whole_model_at_a_large_batch(monkeypatch, given, share, images):
    def figures(device_name, *given):
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: device_name)
        report = Report('step', command='')
        args = arguments(step, '--device', 'cuda', *given)
        step._add_gpu_figures(report, 'bf16', args, dict(step=[0.1], matmul=[1.0]), 7e14)
        return report['bf16 share of matmul rate'].target, report['bf16 images'].target

    shares, rates = share and ('>=', share), images and ('>=', images)
    assert figures('NVIDIA H100 80GB HBM3', '--compile', *given) == (shares, rates)
    assert figures('NVIDIA H100 80GB HBM3 MIG 1g.10gb', '--compile', *given) == (shares, None)
    assert figures('NVIDIA H100 80GB HBM3', *given) == (None, None)


def test_step_gradients_are_new_each_time_or_kept():
    backbone, images = NEPAViT(arch=TINY, causal=True).eval(), torch.randn(1, 3, 28, 28)
    sums = []
    for keep in (False, True):
        one = step.training_step(backbone, images, torch.float32, keep_gradients=keep)
        one()
        one()
        sums.append(backbone.norm.weight.grad.clone())
    torch.testing.assert_close(sums[1], 3 * sums[0])  # one of the first function's, two of the second's


def test_memory_sees_what_is_kept_and_checkpointing_keep_less():
    """At a size whose activations stand out of the interpreter's own ups and downs."""
    arch = dict(embed_dims=64, num_layers=12, num_heads=1, feedforward_channels=256)
    got = {
        variant: measure_in_process(arch=arch, grid=(32, 32), patch_size=2, batch_size=2, variant=variant, steps=1)
        for variant in memory.VARIANTS
    }
    kept = 12 * 2 * 1025 * (9 * 64 + 2 * 256) * 4  # x and h twice, q and k twice, v, y; the MLP's hidden layer twice
    assert got['step']['activations'] == pytest.approx(kept, rel=0.35)
    assert got['step']['activations'] < got['timm blocks']['activations']
    assert got['step']['activations'] > 2 * got['with_cp']['activations']
    assert all(one['peak'] == one['before'] + one['activations'] for one in got.values())


def test_memory_report():
    args = arguments(
        memory, '--arch', 'tiny', '--num-layers', '1', '--img-size', '28', '--batch-size', '1', '--dtype', 'fp32'
    )
    report = memory.run(args)
    peak, per_image = report['fp32 step, peak'], report['fp32 step, per image']
    assert peak.target is None and peak.median > per_image.median
    assert report['fp32 step / with_cp'].target == ('>=', 3.0)


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)'variant': 'step'.*status 1.*head dimension divisible by 4"):
        measure_in_process(arch=TINY | dict(num_heads=16), grid=(2, 2), variant='step')


def test_tokens_reports_and_draws(tmp_path):
    args = arguments(tokens, '--sides', '4', '8', '--num-layers', '1', '--rounds', '1', out_dir=tmp_path)
    report = tokens.run(args)
    assert [f.name for f in report.figures if 'tokens' in f.name] == [
        f'{n} tokens, {what}' for n in (16, 64) for what in ('time', 'memory')
    ]
    assert (tmp_path / 'tokens.png').read_bytes().startswith(b'\x89PNG')


def test_exponent_is_the_slope_of_the_logarithms():
    assert tokens.exponent([1, 10, 100], [5, 500, 50000]) == pytest.approx(2)
    assert tokens.exponent([256, 1024], [3, 12]) == pytest.approx(1)


@pytest.mark.parametrize('sides', [['16'], ['8', '8'], ['0', '4']])
def test_tokens_needs_two_sizes(sides, tmp_path):
    with pytest.raises(ValueError, match='no list of at least two different positive sizes'):
        tokens.run(arguments(tokens, '--sides', *sides, out_dir=tmp_path))

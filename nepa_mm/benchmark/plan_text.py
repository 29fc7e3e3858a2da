"""The plan as it is printed."""

from .flops import Flops
from .plan import GB, Plan
from .plan_gpus import GPUS


def plan_text(plan: Plan) -> str:
    """Lines to read, each with how it is known in brackets.

    Args:
        plan (Plan): The plan.

    Returns:
        str: Several lines.
    """
    gpu, run = GPUS[plan.gpu], plan.run
    kind = 'bfloat16' if gpu.bfloat16 else 'float16'
    lines = [
        f'{plan.config}',
        f'on {plan.gpus} x {gpu.name}: {gpu.tflops:g} TFLOP/s dense {kind}, {gpu.memory / GB:.0f} GB ({gpu.source})',
        '',
        _line('model', plan.model, 'config'),
        _line(
            'parameters', f'{_count(plan.count.parameters)}, of which {_count(plan.count.learning)} learn', 'counted'
        ),
        _line('FLOPs per image', _flops(plan.flops) + ' (attention whole)', 'formula'),
    ]
    if plan.flops_causal != plan.flops:
        lines.append(_line('', _flops(plan.flops_causal) + ' (causal: what flash attention computes)', 'formula'))
    lines += ['', *_memory(plan), '']
    lines.append(_line('images', f'{run.dataset_images:,}' if run.dataset_images else '?', run.dataset_source))
    updates = '?' if run.updates is None else f'{run.updates:,}'
    batch = f'{plan.gpus} x {run.batch_per_gpu} x {run.accumulation} accumulated = {run.global_batch}'
    lines.append(_line('run', f'{run.length}, {updates} updates of batch {batch}', 'config'))
    rate = plan.rate
    lines.append(_line('speed', f'{_rate(rate.images_per_second)} img/s per GPU', f'{rate.kind}: {rate.source}'))
    if plan.hours is None:
        per_million = 1e6 / rate.images_per_second / plan.gpus / 3600
        hours = f'{per_million:.2f} hours per million images'
    else:
        hours = f'{_hours(plan.hours)}, {plan.hours * plan.gpus:,.1f} GPU-hours'
    why = [] if plan.gpus == rate.gpus else [f'{plan.gpus} GPUs taken as {plan.gpus} times one']
    if not rate.with_update:
        why.append('clipping, optimizer and average, which are not measured, taken as nothing')
    lines.append(_line('time', hours, plan.hours_kind + (f': {"; ".join(why)}' if why else '')))
    lines.append(_line('', 'training alone: no validation, no start, no waiting for images', ''))
    if plan.notes:
        lines += ['', *(f'! {note}' for note in plan.notes)]
    return '\n'.join(lines)


def _memory(plan: Plan) -> list[str]:
    """Table of memory by batch: the ways to train in rows."""
    batch = plan.run.batch_per_gpu
    batches = sorted({max(1, batch // 2), batch, 2 * batch})
    heads = ['per image', *(f'batch {b}' for b in batches), 'largest batch']
    rows = [
        _line('memory per GPU', f'{"":21}{"fixed":>10}' + ''.join(f'{h:>14}' for h in heads), 'extrapolated: counted')
    ]
    for variant in plan.variants:
        memory = variant.memory
        cells = [f'{memory.per_image / 1e6:.1f} MB', *(f'{memory.of_batch(b) / GB:.1f} GB' for b in batches)]
        cells.append(f'{variant.largest_batch:,}' if variant.largest_batch else 'none')
        text = f'{variant.name:21}{memory.fixed / GB:>7.1f} GB' + ''.join(f'{c:>14}' for c in cells)
        rows.append(_line('', text, ''))
    m = plan.variants[0].memory
    parts = dict(
        weights=m.weights,
        casts=m.casts,
        gradients=m.gradients,
        DDP=m.buckets,
        optimizer=m.optimizer,
        EMA=m.ema,
        context=m.context,
    )
    rows.append(_line('', 'fixed, as configured: ' + ', '.join(f'{k} {v / GB:.2f}' for k, v in parts.items()), ''))
    return rows


def _line(name: str, text: str, source: str) -> str:
    return f'{name:16} {text}' + (f'  [{source}]' if source else '')


def _count(number: int) -> str:
    return f'{number / 1e6:.2f} M'


def _flops(flops: Flops) -> str:
    return f'forward {flops.forward / 1e9:.2f} G, training {flops.training / 1e9:.2f} G'


def _rate(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _hours(hours: float) -> str:
    if hours < 1:
        return f'{60 * hours:.1f} minutes'
    return f'{hours:.1f} hours' + (f' ({hours / 24:.1f} days)' if hours >= 48 else '')

"""What a config's run will need: parameters, FLOPs, memory, hours; and which of it is measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmengine.config import Config

from nepa_mm.apis.cli import UsageError
from nepa_mm.apis.config_parts import innermost_dataset, model_config
from nepa_mm.apis.preprocessing import SIZES

from .flops import Flops, ViTShape, vit_flops, vit_shape
from .plan_gpus import GPUS
from .plan_memory import Memory, training_memory
from .plan_model import ModelCount, count_model
from .plan_rates import Estimate, Rate, estimate_rate, work
from .plan_run import Run, run_length

AMP_WRAPPERS = ('AutocastOptimWrapper', 'AmpOptimWrapper')
GB = 1e9


@dataclass(frozen=True)
class Variant:
    """Memory of one GPU under one way to train.

    Args:
        name (str): The way.
        memory (Memory): What it takes.
        largest_batch (int): Images of one GPU that fit.
    """

    name: str
    memory: Memory
    largest_batch: int


@dataclass(frozen=True)
class Plan:
    """What :func:`make_plan` finds.

    Args:
        config (str): The config.
        model (str): Its model in words.
        gpu (str): Key of :data:`~nepa_mm.benchmark.plan_gpus.GPUS`.
        gpus (int): Number of them.
        count (ModelCount): Parameters and kept bytes.
        shape (ViTShape): The backbone.
        flops (Flops): Of one image: backbone, neck and heads; attention counted whole.
        flops_causal (Flops): The same without the masked half of causal attention.
        variants (tuple[Variant, ...]): Memory; the first as the config has it.
        rate (Estimate): Images per second of one GPU.
        run (Run): Length of the run.
        hours (float | None): Of the run; None where its length needs the number of images.
        notes (tuple[str, ...]): What stands in the way.
    """

    config: str
    model: str
    gpu: str
    gpus: int
    count: ModelCount
    shape: ViTShape
    flops: Flops
    flops_causal: Flops
    variants: tuple[Variant, ...]
    rate: Estimate
    run: Run
    hours: float | None
    notes: tuple[str, ...]

    @property
    def hours_kind(self) -> str:
        """'published' with such a rate, on as many GPUs; else 'extrapolated': measured rates leave the update out."""
        is_rates = self.gpus == self.rate.gpus and self.rate.with_update
        return self.rate.kind if is_rates else 'extrapolated'

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON can hold it."""
        gpu_hours = None if self.hours is None else self.hours * self.gpus
        return dict(asdict(self), gpu_hours=gpu_hours, hours_kind=self.hours_kind)


def make_plan(cfg: Config, gpu: str, gpus: int, rates: Sequence[Rate], name: str, images: int | None = None) -> Plan:
    """Plan the training run of a config.

    Args:
        cfg (Config): The config.
        gpu (str): Key of :data:`~nepa_mm.benchmark.plan_gpus.GPUS`.
        gpus (int): Number of GPUs.
        rates (Sequence[Rate]): What is known of images per second.
        name (str): Name of the config.
        images (int, optional): Images of its training set. Defaults to None: what is known of it.

    Returns:
        Plan: The plan.

    Raises:
        UsageError: The config trains no NEPAViT, or does not say on which size.
    """
    backbone = cfg.model.get('backbone') or {}
    if backbone.get('type') != 'NEPAViT' or cfg.get('train_dataloader') is None:
        raise UsageError(
            f'{name}: plans are made of configs that train a NEPAViT, this one has {backbone.get("type")!r}'
        )
    size = _image_size(cfg)
    if size is None:
        raise UsageError(f'{name}: neither its data preprocessor nor a crop of its pipeline says the size of an image')
    pretrains = cfg.model.type == 'NEPA'
    shape = vit_shape(backbone, size, causal=pretrains)
    wrapper = cfg.optim_wrapper
    count = count_model(model_config(cfg), cfg.get('default_scope', 'mmpretrain'), size, _is_amp(wrapper))
    length = run_length(cfg, gpus, images)
    hooks = [str(hook.get('type')) for hook in cfg.get('custom_hooks') or ()]
    variants = _variants(count, cfg, shape.with_cp, gpu, gpus, ema=any('EMA' in hook for hook in hooks))
    compiled = bool(cfg.get('compile'))
    rate = estimate_rate(rates, gpu, shape, work(shape) + count.head_flops.training, compiled, pretrains)
    return Plan(
        config=name,
        model=_model_in_words(cfg, shape),
        gpu=gpu,
        gpus=gpus,
        count=count,
        shape=shape,
        flops=vit_flops(shape) + count.head_flops,
        flops_causal=vit_flops(shape, skip_masked=True) + count.head_flops,
        variants=variants,
        rate=rate,
        run=length,
        hours=None if length.images is None else length.images / rate.images_per_second / gpus / 3600,
        notes=tuple(_notes(variants, gpu, length, wrapper)),
    )


def _is_amp(wrapper: Mapping[str, Any]) -> bool:
    return wrapper.get('type') in AMP_WRAPPERS


def _image_size(cfg: Config) -> tuple[int, int] | None:
    """Height and width that the model trains on: what its preprocessor pads to, or else the last crop."""
    preprocessor = model_config(cfg).get('data_preprocessor') or {}
    dataset = innermost_dataset(cfg.train_dataloader, holding='pipeline') or {}
    sizes = [step.get(key) for step in dataset.get('pipeline', ()) if 'Crop' in str(step['type']) for key in SIZES]
    given = next((size for size in (preprocessor.get('size'), *reversed(sizes)) if size is not None), None)
    return (given, given) if isinstance(given, int) else given if given is None else (given[0], given[1])


def _model_in_words(cfg: Config, shape: ViTShape) -> str:
    arch = cfg.model.backbone.get('arch', 'base')
    size = arch if isinstance(arch, str) else f'{shape.embed_dims} wide, {shape.num_layers} layers'
    parts = [cfg.model.type, f'NEPAViT {size}', shape.mlp, f'patch {shape.patch_size}']
    parts.append(f'{shape.image_size[0]} x {shape.image_size[1]}')
    parts.append(f'{shape.num_patches} patches, {"causal" if shape.causal else "bidirectional"}')
    if shape.frozen_layers:
        parts.append(f'{shape.frozen_layers} layers frozen')
    return ', '.join(parts)


def _variants(count: ModelCount, cfg: Config, with_cp: bool, gpu: str, gpus: int, ema: bool) -> tuple[Variant, ...]:
    """Memory with and without activation checkpointing and FSDP, as the config has it first."""
    fsdp = 'FSDP' in str((cfg.get('strategy') or {}).get('type')) or 'FullyShard' in str(cfg.get('strategy'))
    wrapped = (cfg.get('model_wrapper_cfg') or {}).get('type', '')
    fsdp = fsdp or 'FullySharded' in wrapped
    optimizer = str((cfg.optim_wrapper.get('optimizer') or {}).get('type'))
    ways = [(a, b) for b in (False, True) for a in (False, True) if gpus > 1 or not b]
    ways.sort(key=lambda way: way != (with_cp, fsdp))
    variants = []
    for cp, sharded in ways:
        base = 'FSDP' if sharded else 'DDP' if gpus > 1 else 'one GPU'
        memory = training_memory(count, gpus, optimizer, ema, cp, sharded)
        largest = memory.largest_batch(GPUS[gpu].memory)
        variants.append(Variant(base + (', checkpointing' if cp else ''), memory, largest))
    return tuple(variants)


def _notes(variants: Sequence[Variant], gpu: str, run: Run, wrapper: Mapping[str, Any]) -> Iterator[str]:
    configured = variants[0]
    if configured.largest_batch < run.batch_per_gpu:
        fits = [f'{v.name} (up to {v.largest_batch})' for v in variants[1:] if v.largest_batch >= run.batch_per_gpu]
        yield (
            f'a batch of {run.batch_per_gpu} does not fit into {GPUS[gpu].memory / GB:.0f} GB as configured: '
            + (f'it does with {" or ".join(fits)}; or ' if fits else '')
            + 'take a smaller one and accumulate'
        )
    if run.base_batch and run.global_batch != run.base_batch:
        yield (
            f'the lr belongs to a batch of {run.base_batch}, not of {run.global_batch}: pass --auto-scale-lr, or '
            'accumulate to that batch'
        )
    amp = _is_amp(wrapper)
    if amp and not GPUS[gpu].bfloat16:
        # What the two wrappers take unasked; both take the other as well.
        dtype = wrapper.get('dtype', 'bfloat16' if wrapper['type'] == 'AutocastOptimWrapper' else 'float16')
        advice = " (optim_wrapper.dtype='float16')" if 'bfloat16' in str(dtype) else ''
        yield f'{GPUS[gpu].name} has no bfloat16 matrix units; its rate is that of float16{advice}'
    if not amp:
        yield 'the config trains in float32; the rate is that of 16-bit products'

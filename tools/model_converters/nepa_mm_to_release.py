"""Write a checkpoint of nepa_mm in the release's format.

CKPT is a ``.pth`` of a run, or of release_to_nepa_mm.py: pretraining or classifier, with EMA weights or without. DST
becomes a directory with ``config.json``, ``preprocessor_config.json``, ``model.safetensors`` (the raw weights) and,
where CKPT has them, ``pytorch_model_ema.bin``. What the backbone is comes from the file, or from a config.

Usage: python tools/model_converters/nepa_mm_to_release.py CKPT DST [options]
"""

import argparse
import sys
from pathlib import Path
from typing import Any


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description='nepa_mm checkpoint -> release directory')
    parser.add_argument('checkpoint', help='the .pth')
    parser.add_argument('dst', type=Path, help='the directory to write')
    parser.add_argument('--config', help='config file of the run, or its name (default: what the checkpoint says)')
    parser.add_argument('--weights', choices=['raw', 'ema'], help='write these alone, as model.safetensors')
    parser.add_argument('--patch-size', type=int, help='resample the patch embedding to patches of this side')
    parser.add_argument('--image-size', type=int, help='image side for config.json (default: 16 patches)')
    parser.add_argument('--fuse-qkv', action='store_true', help='store query, key and value as one tensor')
    parser.add_argument('--backbone-only', action='store_true', help='leave the head out, whichever it is')
    parser.add_argument('--force', action='store_true', help='replace the release in DST')
    return parser.parse_args()


def convert(args: argparse.Namespace) -> str:
    """Convert, write and check.

    Args:
        args (argparse.Namespace): From :func:`parse_args`.

    Returns:
        str: What was done.

    Raises:
        CheckpointError: CKPT cannot be read, has no form in the release, or DST is not empty.
    """
    from nepa_mm.checkpoints import CheckpointError, patch_embed, read_checkpoint, to_release
    from nepa_mm.checkpoints.loader import select_weights
    from nepa_mm.checkpoints.release_files import Release
    from nepa_mm.models.backbones.release_config import has_classifier, release_config_of, without_classifier

    checkpoint = read_checkpoint(args.checkpoint)
    meta = checkpoint.get('meta') or {}
    backbone, causal, normalisation = _model_of(checkpoint, args)
    notes: list[str] = []

    def part(weights: str) -> dict:
        state_dict, source = select_weights(checkpoint, weights, args.checkpoint)
        ours = _in_the_releases_form(state_dict, source, backbone, args.backbone_only, notes)
        if args.patch_size:
            ours[patch_embed.WEIGHT] = patch_embed.resample_patch_embed(ours[patch_embed.WEIGHT], args.patch_size)
        return ours

    raw = part(args.weights or 'raw')
    ema = part('ema') if 'ema_state_dict' in checkpoint and args.weights is None else None

    kept: dict[str, Any] = meta.get('release') or {}  # what release_to_nepa_mm.py found
    patch_size = raw[patch_embed.WEIGHT].shape[-1]
    image_size = args.image_size or kept.get('config', {}).get('image_size', 16 * patch_size)
    if image_size % patch_size:
        raise CheckpointError(f'Images of {image_size} are not whole patches of {patch_size}; give --image-size.')
    if kept:
        config = kept['config'] | dict(patch_size=patch_size, image_size=image_size)
        config = config if has_classifier(raw) else without_classifier(config)
        if backbone.get('layer_scale_init', 1e-5) is None:
            config['layerscale_value'] = 1.0
    else:
        classes = raw['head.fc.weight'].shape[0] if has_classifier(raw) else None
        config = release_config_of(backbone | dict(patch_size=patch_size), image_size, causal, classes)
        names = (meta.get('dataset_meta') or {}).get('classes')
        if names is not None and len(names) == classes:
            config['id2label'] = {str(i): str(name) for i, name in enumerate(names)}
            config['label2id'] = {str(name): i for i, name in enumerate(names)}
    preprocessor = dict(kept.get('preprocessor') or _preprocessor(image_size, *normalisation))
    if args.image_size:
        preprocessor['size'] = dict(height=image_size, width=image_size)

    fused = args.fuse_qkv or kept.get('fused_qkv', False)
    release = Release(config, to_release(raw, fused), None if ema is None else to_release(ema, fused), preprocessor)
    report = _write_and_check(release, args.dst, args.force)
    what = 'raw and EMA weights' if ema is not None else f'{args.weights or "raw"} weights'
    return '\n'.join(
        [f'Wrote {args.dst} ({what}). As its config.json says, its backbone loads:', report, *dict.fromkeys(notes)]
    )


def _in_the_releases_form(state_dict: dict, source: str, backbone: dict, backbone_only: bool, notes: list[str]) -> dict:
    """Backbone and classifier under our names without a prefix; ``notes`` gets what was left out or added."""
    from nepa_mm.checkpoints import CheckpointError
    from nepa_mm.checkpoints.layer_scale import unit_layer_scale

    ours = {k.removeprefix('module.').removeprefix('backbone.'): v for k, v in state_dict.items()}
    if ours.pop('mask_token', None) is not None:
        notes.append('mask_token, which only training uses, has no form in the release and was left out.')
    own = {k: v for k, v in ours.items() if k.split('.')[0] in ('cls_token', 'patch_embed', 'layers', 'norm')}
    absent = [name for name in ('cls_token', 'patch_embed.proj.weight', 'norm.weight') if name not in own]
    if absent:
        raise CheckpointError(f'{source} holds no whole NEPAViT: {", ".join(absent)} is not there.')
    if any(k.startswith('pos_embed.') for k in ours):
        raise CheckpointError(f'{source} has a learned position embedding; the release has no form for that.')
    head = {k: v for k, v in ours.items() if k not in own}
    if head and backbone_only:
        notes.append(f'{len(head)} tensors of the head were left out.')
        head = {}
    if head and set(head) != {f'head.{n}.{p}' for n in ('fc_norm', 'fc') for p in ('weight', 'bias')}:
        raise CheckpointError(
            f'{source} has {", ".join(sorted(head)[:4])}{", ..." if len(head) > 4 else ""}; the release has a form for '
            'the head of NEPAClsHead with its norm, and for no other. Pass --backbone-only to write the backbone.'
        )
    if head and backbone.get('out_type') != 'avg_featmap':
        raise CheckpointError(
            f'The classifier of {source} takes out_type={backbone.get("out_type", "featmap")!r}; that of the release '
            "takes the mean of the patches ('avg_featmap'). Pass --backbone-only to write the backbone."
        )
    scaled = unit_layer_scale(own)
    if len(scaled) > len(own):
        notes.append('The release always has LayerScale: it was written as ones.')
    return scaled | head


def _write_and_check(release: Any, dst: Path, force: bool) -> str:
    """Write, read back, compare bit by bit, and load into the backbone that ``config.json`` describes."""
    import torch
    from mmengine.registry import MODELS

    import nepa_mm  # noqa: F401  registers NEPAViT
    from nepa_mm.checkpoints import CheckpointError, from_release, load_weights
    from nepa_mm.checkpoints.release_files import new_folder, read_release, write_release
    from nepa_mm.models.backbones.release_config import backbone_config_of

    with new_folder(dst, force) as folder:
        write_release(folder, release)
        again = read_release(folder)
        for written, expected in ((again.weights, release.weights), (again.ema or {}, release.ema or {})):
            if written.keys() != expected.keys() or not all(torch.equal(written[k], v) for k, v in expected.items()):
                raise CheckpointError(f'{dst}: the weights were not written as they were; check the disk.')
        report = load_weights(MODELS.build(backbone_config_of(again.config, from_release(again.weights))), folder)
    report.source = report.source.replace(str(folder), str(dst))
    return str(report)


def _model_of(checkpoint: dict, args: argparse.Namespace) -> tuple[dict, bool, tuple[list, list]]:
    """Config of the backbone, whether it was causal, and (mean, std) of the images on 0..255."""
    from mmengine.config import Config

    from nepa_mm.apis.config_parts import model_config
    from nepa_mm.apis.configs import find_config
    from nepa_mm.checkpoints import CheckpointError
    from nepa_mm.checkpoints.recorded_config import recorded_model

    default = ([127.5] * 3, [127.5] * 3)
    converted = (checkpoint.get('meta') or {}).get('backbone')
    if args.config:
        cfg = Config.fromfile(find_config(args.config))
        model = model_config(cfg).to_dict() if 'model' in cfg else None
    elif converted:
        return dict(converted), converted.get('causal', True), default
    else:
        model = recorded_model(checkpoint, args.checkpoint)
    if not model or 'backbone' not in model:
        raise CheckpointError(f'{args.checkpoint} does not say which backbone it holds; name its config (--config).')
    preprocessor = model.get('data_preprocessor') or {}
    normalisation = (preprocessor.get('mean') or default[0], preprocessor.get('std') or default[1])
    pretraining = str(model.get('type')).split('.')[-1] == 'NEPA'
    return dict(model['backbone']), model['backbone'].get('causal', pretraining), normalisation


def _preprocessor(image_size: int, mean: list, std: list) -> dict:
    """What the release's quick start does to an image: a bilinear squash."""
    return dict(
        image_processor_type='ViTImageProcessor',
        do_resize=True,
        size=dict(height=image_size, width=image_size),
        resample=2,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[value / 255 for value in mean],
        image_std=[value / 255 for value in std],
    )


def main() -> None:
    """Convert."""
    args = parse_args()
    from nepa_mm.apis.configs import ConfigNotFoundError
    from nepa_mm.checkpoints import CheckpointError

    try:
        print(convert(args))
    except (CheckpointError, ConfigNotFoundError) as error:
        sys.exit(f'nepa_mm_to_release.py: {error}')


if __name__ == '__main__':
    main()

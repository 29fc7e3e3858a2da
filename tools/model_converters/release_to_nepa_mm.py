"""Make a checkpoint of nepa_mm from weights in the release's format.

SRC is a directory with ``model.safetensors``, ``config.json`` and perhaps ``pytorch_model_ema.bin`` and
``preprocessor_config.json``; or ``hf://OWNER/NAME[@REVISION]``; or a single file, whose ``config.json`` lies beside it
or is named. DST is a ``.pth`` as mmengine writes them: with EMA weights in SRC, its ``state_dict`` is the average and
its ``ema_state_dict`` the raw weights, so ``weights='raw'|'ema'`` of the loader finds each. The backbone's config is
printed, and kept in the file.

Usage: python tools/model_converters/release_to_nepa_mm.py SRC DST [options]
"""

import argparse
import sys
from pathlib import Path
from typing import Any


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description='Release checkpoint -> nepa_mm checkpoint')
    parser.add_argument('src', help='release directory, hf://OWNER/NAME[@REVISION], or a file')
    parser.add_argument('dst', type=Path, help='the .pth to write')
    parser.add_argument('--config', help='config.json (default: the one beside the weights)')
    parser.add_argument('--patch-size', type=int, help='resample the patch embedding to patches of this side')
    parser.add_argument('--image-size', type=int, help='image side to note for the way back (default: that of SRC)')
    parser.add_argument(
        '--fold-layer-scale',
        action='store_true',
        help='multiply LayerScale into the layers before it; for NEPAViT(layer_scale_init=None), no way back',
    )
    parser.add_argument('--backbone-only', action='store_true', help='leave the classifier out')
    parser.add_argument('--force', action='store_true', help='replace DST if it exists')
    return parser.parse_args()


def convert(args: argparse.Namespace) -> str:
    """Convert, write and check.

    Args:
        args (argparse.Namespace): From :func:`parse_args`.

    Returns:
        str: What was done, and the config that fits.

    Raises:
        CheckpointError: SRC cannot be read or is not what NEPAViT can be, or DST exists.
    """
    import nepa_mm
    from nepa_mm.checkpoints import CheckpointError
    from nepa_mm.checkpoints.release_files import read_release
    from nepa_mm.models.backbones.release_config import backbone_config_of, class_names, has_classifier, unread_keys

    release = read_release(args.src, args.config)
    raw = _as_ours(release.weights, args)
    ema = None if release.ema is None else _as_ours(release.ema, args)
    backbone = backbone_config_of(release.config, raw)
    image_size = args.image_size or release.config.get('image_size', 16 * backbone['patch_size'])
    if image_size % backbone['patch_size']:
        raise CheckpointError(
            f'Images of {image_size} are not whole patches of {backbone["patch_size"]}; give an --image-size that is '
            '(NEPAViT takes any, the release does not).'
        )
    meta: dict[str, Any] = dict(
        nepa_mm_version=nepa_mm.__version__,
        source=str(args.src),
        backbone=backbone,
        # For the way back.
        release=dict(
            config=release.config | dict(patch_size=backbone['patch_size'], image_size=image_size),
            preprocessor=release.preprocessor,
            fused_qkv=any('.attention.attention.qkv.' in key for key in release.weights),
        ),
    )
    names = class_names(release.config)
    if names and has_classifier(raw):
        meta['dataset_meta'] = dict(classes=names)
    report = _write_and_check(raw, ema, meta, args.dst, args.force)

    lines = [f'Wrote {args.dst} ({"raw" if ema is None else "raw and EMA"} weights). Its backbone loads:', report]
    lines.append(f'backbone = {_as_config(backbone)}')
    if has_classifier(raw):
        classes, width = raw['head.fc.weight'].shape
        lines.append(f"head = dict(type='NEPAClsHead', num_classes={classes}, in_channels={width})")
    unread = unread_keys(release.config)
    if unread:
        lines.append(f'Keys of config.json that were not looked at: {", ".join(unread)}')
    return '\n'.join(lines)


def _as_ours(weights: dict, args: argparse.Namespace) -> dict:
    """Our names without a prefix, with the changes that were asked for."""
    from nepa_mm.checkpoints import CheckpointError, from_release, patch_embed
    from nepa_mm.checkpoints.layer_scale import fold_layer_scale

    try:
        ours = from_release(weights)
    except KeyError as error:
        raise CheckpointError(f'{args.src} is not what nepa_mm can build. {error.args[0]}') from error
    if args.backbone_only:
        ours = {k: v for k, v in ours.items() if not k.startswith('head.')}
    if args.patch_size and patch_embed.WEIGHT in ours:
        ours[patch_embed.WEIGHT] = patch_embed.resample_patch_embed(ours[patch_embed.WEIGHT], args.patch_size)
    return fold_layer_scale(ours) if args.fold_layer_scale else ours


def _write_and_check(raw: dict, ema: dict | None, meta: dict, dst: Path, force: bool) -> str:
    """Write, read back, compare bit by bit, and load into the backbone that was found."""
    import torch
    from mmengine.registry import MODELS

    from nepa_mm.checkpoints import CheckpointError, load_weights, read_weights
    from nepa_mm.checkpoints.release_files import new_file

    def in_a_model(ours: dict, start: str = '') -> dict:
        return {start + (k if k.startswith('head.') else f'backbone.{k}'): v for k, v in ours.items()}

    checkpoint = dict(meta=meta, state_dict=in_a_model(raw))
    if ema is not None:
        # As mmengine's EMAHook leaves them: the average under state_dict, the raw weights beside it.
        checkpoint |= dict(state_dict=in_a_model(ema), ema_state_dict=in_a_model(raw, 'module.'))
    with new_file(dst, force) as file:
        torch.save(checkpoint, file)
        for weights, expected in (('raw', raw), ('ema', ema)):
            if expected is not None:
                written = read_weights(file, weights)[0]['state_dict']
                tensors = in_a_model(expected, 'module.' if ema is not None and weights == 'raw' else '')
                if written.keys() != tensors.keys() or not all(torch.equal(written[k], v) for k, v in tensors.items()):
                    raise CheckpointError(f'{dst}: the weights were not written as they were; check the disk.')
        report = load_weights(MODELS.build(meta['backbone']), file)
    report.source = report.source.replace(str(file), str(dst))
    return str(report)


def _as_config(value: object) -> str:
    if isinstance(value, dict):
        return f'dict({", ".join(f"{key}={_as_config(item)}" for key, item in value.items())})'
    return repr(value)


def main() -> None:
    """Convert."""
    args = parse_args()
    from nepa_mm.checkpoints import CheckpointError

    try:
        print(convert(args))
    except CheckpointError as error:
        sys.exit(f'release_to_nepa_mm.py: {error}')


if __name__ == '__main__':
    main()

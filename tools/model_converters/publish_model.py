"""Make of a run's checkpoint a file to publish: one set of weights, no records of training, its hash in the name.

The name becomes OUT_DATE-HASH.pth, as with mmpretrain's tool of this name; the loader checks such a hash after a
download.

Usage: python tools/model_converters/publish_model.py CKPT OUT.pth [--weights raw|ema]
"""

import argparse
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(description='Checkpoint of a run -> file to publish')
    parser.add_argument('checkpoint', help='the .pth of a run')
    parser.add_argument('out', type=Path, help='where to write; date and hash are added to the name')
    parser.add_argument(
        '--weights', choices=['raw', 'ema'], help='which to publish (default: the average where there is one)'
    )
    return parser.parse_args()


def publish(args: argparse.Namespace) -> Path:
    """Write the file.

    Args:
        args (argparse.Namespace): From :func:`parse_args`.

    Returns:
        Path: What was written.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not hold these weights.
    """
    import datetime
    import hashlib

    import torch

    import nepa_mm
    from nepa_mm.checkpoints import read_weights
    from nepa_mm.checkpoints.release_files import temporary_folder

    checkpoint, source = read_weights(args.checkpoint, args.weights)
    print(f'Publishing {source}.')
    meta = dict(checkpoint.get('meta') or {}) | dict(nepa_mm_version=nepa_mm.__version__)
    weights = {k.removeprefix('module.'): v for k, v in checkpoint['state_dict'].items()}
    stem = args.out.name.removesuffix('.pth')
    with temporary_folder(args.out) as folder:
        file = folder / args.out.name
        torch.save(dict(meta=meta, state_dict=weights), file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        return file.replace(args.out.with_name(f'{stem}_{datetime.datetime.now():%Y%m%d}-{digest}.pth'))


def main() -> None:
    """Publish."""
    args = parse_args()
    from nepa_mm.checkpoints import CheckpointError

    try:
        print(f'Wrote {publish(args)}.')
    except CheckpointError as error:
        sys.exit(f'publish_model.py: {error}')


if __name__ == '__main__':
    main()

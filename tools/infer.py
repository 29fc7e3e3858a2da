"""Segment or classify images, folders of images and videos with a trained model."""

import argparse
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line; nothing heavy is imported before, so ``--help`` is quick."""
    parser = argparse.ArgumentParser(
        description='Segment or classify images, folders and videos. Exit status 1 where files could not be read.'
    )
    parser.add_argument('config', help='config file, or the name of one in configs/')
    parser.add_argument(
        'checkpoint', help='checkpoint file, release directory, hf://OWNER/NAME[@REVISION] or URL of a file'
    )
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='image, video, or folder of these at any depth')
    parser.add_argument(
        '--out',
        required=True,
        help='folder for overlays/, label_maps/ (segmentation; in the form of the annotations of the '
        "config's data set) and results.json",
    )
    parser.add_argument('--weights', choices=['raw', 'ema'], help='which weights of a checkpoint that holds both')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colours over the image (default: 0.5)')
    parser.add_argument('--topk', type=int, default=5, help='classes to name for an image (default: 5)')
    parser.add_argument('--batch-size', type=int, default=1, help='images of one size to compute at once (default: 1)')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: the GPU if there is one)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='settings that override the config; lists as key="[a,b]" or key=a,b, without white space',
    )
    return parser.parse_args()


def main() -> None:
    """Predict."""
    args = parse_args()
    try:
        from nepa_mm.apis import cli, infer
    except ModuleNotFoundError as error:
        if error.name != 'nepa_mm':
            raise
        sys.exit(
            f'infer.py: nepa_mm is not installed for {sys.executable}; run "source .venv/bin/activate" (after make '
            'install), or "pip install -e .[openmm]"'
        )
    from nepa_mm.checkpoints import CheckpointError

    try:
        status = infer.run(args, Path(__file__).resolve().parents[1] / 'configs')
    except (cli.UsageError, CheckpointError) as error:
        sys.exit(f'infer.py: {error}')
    sys.exit(status)


if __name__ == '__main__':
    main()

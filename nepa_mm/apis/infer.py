"""What tools/infer.py does: images, folders and videos in; overlays, label maps and a JSON file out."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.model import BaseModel

from nepa_mm.datasets import read_image
from nepa_mm.visualization.overlay import draw_classification, draw_segmentation

from .classes import num_classes_of
from .cli import UsageError, check_device, load_config, parse_options, print_any_name
from .images import SUFFIXES, ImageError, ImageInput, list_files
from .inference import iter_classify, iter_segment
from .model import get_model
from .preprocessing import LARGEST
from .results import Classification, Segmentation

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')

Result = Classification | Segmentation


def run(args: argparse.Namespace, configs: str | Path) -> int:
    """Predict for every input.

    Args:
        args (argparse.Namespace): Arguments of tools/infer.py.
        configs (str or Path): See :func:`nepa_mm.apis.cli.load_config`.

    Returns:
        int: The exit status: 0, or 1 where files were skipped.

    Raises:
        UsageError: An argument names something that does not exist or does not fit.
        CheckpointError: See :func:`nepa_mm.get_model`.
    """
    print_any_name()
    if not 0 <= args.opacity <= 1:
        raise UsageError(f'--opacity {args.opacity} is not in [0, 1]')
    for name in ('batch_size', 'topk'):
        if getattr(args, name) < 1:
            raise UsageError(f'--{name.replace("_", "-")} {getattr(args, name)} is not a positive number')
    check_device(args.device)
    cfg = load_config(args.config, configs)
    cfg.merge_from_dict(parse_options(args.cfg_options))
    files = output_names(args.inputs)
    model = get_model(cfg, args.checkpoint, weights=args.weights, device=args.device)
    if num_classes_of(model) is None:
        raise UsageError(
            f'{args.config} makes a {type(model).__name__}, which neither segments nor classifies; name the config of '
            'a segmentor or classifier'
        )
    session = Session(model, args, total=len(files))
    images = {path: name for path, name in files.items() if not is_video(path)}
    for image, result in session.predict(images):
        file = Path(str(image))
        session.write(result, images[file], read_image(file.read_bytes(), str(file), LARGEST))
    for path, name in files.items():
        if is_video(path):
            session.video(path, name)
    return session.finish(cfg)


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def output_names(inputs: Iterable[str]) -> dict[Path, str]:
    """The files to predict for, and how to call what is written for each.

    Args:
        inputs (Iterable[str]): Images, videos and folders of these, at any depth.

    Returns:
        dict[Path, str]: File to name: its path below the folder given, without suffix where that is unambiguous.

    Raises:
        UsageError: An input does not exist, or a folder holds neither images nor videos.
    """
    found: dict[Path, Path] = {}
    for item in map(Path, inputs):
        if item.is_file():
            found[item] = Path(item.name)
        elif item.is_dir():
            try:
                found |= {p: p.relative_to(item) for p in list_files(item, SUFFIXES + VIDEO_SUFFIXES)}
            except ImageError as error:
                raise UsageError(f'folder {str(item)!r} holds neither images nor videos') from error
        else:
            raise UsageError(f'input {str(item)!r} does not exist')
    stems = Counter(relative.with_suffix('') for relative in found.values())
    names: dict[Path, str] = {}
    taken: Counter[str] = Counter()
    for path, relative in found.items():
        name = str(relative.with_suffix('') if stems[relative.with_suffix('')] == 1 else relative)
        taken[name] += 1
        names[path] = name if taken[name] == 1 else f'{name}-{taken[name]}'
    return names


@dataclass
class Session:
    """The predictions of one call of the tool: writes them one by one, and remembers what the JSON file lists.

    Args:
        model (BaseModel): A classifier or segmentor.
        args (argparse.Namespace): Arguments of tools/infer.py.
        total (int): Number of files.
    """

    model: BaseModel
    args: argparse.Namespace
    total: int
    done: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.out = Path(self.args.out)
        self.segments = hasattr(self.model, 'decode_head')
        meta = getattr(self.model, 'dataset_meta', None) or {}
        # Label maps are written as the data set's own annotations are: there, 0 may be "no label".
        self.first_label = 1 if meta.get('reduce_zero_label') else 0
        self.names = list(meta.get('classes') or map(str, range(num_classes_of(self.model) or 0)))

    def predict(self, images: Iterable[ImageInput]) -> Iterator[tuple[ImageInput, Result]]:
        """Predictions for images, without those that cannot be read."""
        args = self.args
        options: dict[str, Any] = dict(batch_size=args.batch_size, amp=args.amp, on_error=self.skip)
        if self.segments:
            return iter_segment(self.model, images, **options)
        return iter_classify(self.model, images, topk=args.topk, **options)

    def skip(self, path: Any, error: Exception) -> None:
        """Note a file that cannot be read."""
        self.skipped.append(dict(path=str(path), error=str(error)))
        print(f'{self.progress()} skipped: {error}', file=sys.stderr, flush=True)

    def write(self, result: Result, name: str, image: np.ndarray) -> None:
        """Write what there is to say of an image."""
        picture = self.draw(result, image, fixed=False)
        write_image(self.out / 'overlays' / f'{name}.png', picture)
        if isinstance(result, Segmentation):
            write_image(self.out / 'label_maps' / f'{name}.png', self.label_map(result))
        self.note(result.to_dict() | dict(name=name), summary(result))

    def note(self, entry: dict[str, Any], text: str) -> None:
        """Add a file to the list, and show how far we are."""
        self.done.append(entry)
        print(f'{self.progress()} {entry["path"]}: {text}', flush=True)

    def progress(self) -> str:
        """How many files are done or skipped, of all."""
        return f'[{len(self.done) + len(self.skipped)}/{self.total}]'

    def draw(self, result: Result, image: np.ndarray, fixed: bool) -> np.ndarray:
        """The picture of a prediction; ``fixed`` for the frames of a video, which are of one size."""
        if isinstance(result, Segmentation):
            return draw_segmentation(
                image, result.label_map, result.classes, result.palette, opacity=self.args.opacity, fixed_width=fixed
            )
        rows = [(score.class_name or str(score.label), score.score) for score in result.top]
        return draw_classification(image, rows, self.names if fixed else None)

    def label_map(self, result: Segmentation) -> np.ndarray:
        """Label map in the form of the data set's annotations."""
        # 256 classes and "no label" before them do not fit 8 bits.
        highest = max(0, len(self.names) - 1 + self.first_label)
        dtype = np.promote_types(result.label_map.dtype, np.min_scalar_type(highest))
        return result.label_map.astype(dtype) + dtype.type(self.first_label)

    def video(self, path: Path, name: str) -> None:
        """Write a video of overlays and, for segmentation, the label map of each frame."""
        if not all(is_utf8(text) for text in (str(path), str(self.out), name)):
            self.skip(path, ValueError(f'video {str(path)!r} has a name that is not UTF-8, which OpenCV cannot open'))
            return
        capture = cv2.VideoCapture(str(path))
        writer: cv2.VideoWriter | None = None
        count = 0
        try:
            for frame, result in self.predict(frames_of(capture)):
                picture = even(self.draw(result, np.asarray(frame), fixed=True))
                if writer is None:
                    writer = open_writer(self.out / 'overlays' / f'{name}.mp4', picture, capture.get(cv2.CAP_PROP_FPS))
                writer.write(picture)
                if isinstance(result, Segmentation):
                    write_image(self.out / 'label_maps' / name / f'{count:06d}.png', self.label_map(result))
                count += 1
        finally:
            capture.release()
            if writer is not None:
                writer.release()
        if count == 0:
            self.skip(path, ValueError(f'video {str(path)!r} cannot be read, or has no frames'))
        else:
            self.note(dict(path=str(path), name=name, frames=count), f'{count} frames')

    def finish(self, cfg: Config) -> int:
        """Write the JSON file, sum up, and return the exit status."""
        report: dict[str, Any] = dict(config=cfg.filename, checkpoint=str(self.args.checkpoint))
        if self.segments:
            report['label_map_values'] = {i + self.first_label: name for i, name in enumerate(self.names)}
        report |= dict(files=self.done, skipped=self.skipped)
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / 'results.json'
        # What of a name is not UTF-8 becomes JSON's own \udc..., from which it can be read again.
        text = json.dumps(report, indent=1, ensure_ascii=False) + '\n'
        file.write_text(text, encoding='utf-8', errors='backslashreplace')
        print(f'{len(self.done)} of {_files(self.total)}; results in {self.out}')
        if self.skipped:
            print(f'{_files(len(self.skipped))} could not be read; see "skipped" in {file}', file=sys.stderr)
        return 1 if self.skipped else 0


def is_utf8(text: str) -> bool:
    """Whether a name can be handed to OpenCV, which a name of other bytes crashes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _files(count: int) -> str:
    return f'{count} file' if count == 1 else f'{count} files'


def summary(result: Result) -> str:
    """A prediction in a line."""
    if isinstance(result, Segmentation):
        shares = list(result.shares.items())
        more = f', {len(shares) - 5} more' if len(shares) > 5 else ''
        return ', '.join(f'{name} {100 * share:.1f} %' for name, share in shares[:5]) + more
    return ', '.join(f'{s.class_name or s.label} {100 * s.score:.1f} %' for s in result.top)


def frames_of(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Frames of a video, (H, W, 3), uint8, BGR."""
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame


def even(picture: np.ndarray) -> np.ndarray:
    """A picture with even sides, as video codecs want them."""
    height, width = picture.shape[:2]
    return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def open_writer(file: Path, picture: np.ndarray, fps: float) -> cv2.VideoWriter:
    """A writer of pictures of this size.

    Raises:
        OSError: OpenCV cannot write it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'mp4v'), fps or 25.0, picture.shape[1::-1])
    if not writer.isOpened():
        raise OSError(f'cannot write {file}: this OpenCV has no mp4v encoder, or the folder is read-only')
    return writer


def write_image(file: Path, picture: np.ndarray) -> None:
    """Write a picture.

    Raises:
        OSError: That failed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not by cv2.imwrite, which a name that is not UTF-8 crashes.
    whole, data = cv2.imencode(file.suffix, picture)
    if not whole:
        raise OSError(f'cannot write {file}')
    file.write_bytes(data.tobytes())

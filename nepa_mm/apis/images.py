"""What users hand in as images: paths, folders, PIL images and arrays, and lists of these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from nepa_mm.datasets.reading import pil_to_bgr

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')

ImageInput = str | os.PathLike | PIL.Image.Image | np.ndarray


class ImageError(ValueError):
    """An image cannot be read, or is none; the message names it."""


def list_files(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Files below a folder.

    Args:
        folder (str or Path): The folder.
        suffixes (Sequence[str]): Endings, in lower case. Defaults to images'.

    Returns:
        list[Path]: Files at any depth with these endings in lower or upper case, sorted; hidden ones are left out.

    Raises:
        ImageError: There is none.
    """
    files = sorted(p for p in Path(folder).rglob('*') if p.suffix.lower() in suffixes and p.is_file())
    files = [p for p in files if not any(part.startswith('.') for part in p.relative_to(folder).parts)]
    if not files:
        raise ImageError(f'no files to read ({", ".join(suffixes)}) in folder {str(folder)!r}')
    return files


def as_list(images: Any) -> tuple[list[ImageInput], bool]:
    """Images as a list, and whether they were given as several.

    Args:
        images: An image (path, PIL image, array), a folder, or a list or tuple of images and folders.

    Returns:
        tuple[list, bool]: The images, folders unfolded; False for a single image.

    Raises:
        ImageError: A folder without images, or no list and no image.
    """
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in as_list(item)[0]], True
    if isinstance(images, (str, os.PathLike)):
        path = os.path.expanduser(images)
        return (list(list_files(path)), True) if os.path.isdir(path) else ([path], False)
    if not isinstance(images, ImageInput):
        raise ImageError(
            f'an image is a path, a PIL image or an array (H, W, 3) of uint8 in BGR, but got {type(images).__name__}'
        )
    return [images], False


def to_bgr(image: PIL.Image.Image | np.ndarray) -> np.ndarray:
    """An image in memory as an array.

    Args:
        image (PIL.Image.Image or np.ndarray): A PIL image of any mode (turned by its EXIF, and converted, as its file
            would be), or an array of uint8, (H, W, C) in BGR or (H, W) in grey.

    Returns:
        np.ndarray: (H, W, C), BGR.

    Raises:
        ImageError: The PIL image cannot be read, or the array is of another shape or type.
    """
    if isinstance(image, PIL.Image.Image):
        try:
            return pil_to_bgr(image)
        except (OSError, ValueError) as error:
            raise ImageError(f'a PIL image cannot be read: {error}') from error
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise ImageError(
            f'an image array is uint8, (H, W, 3) in BGR or (H, W) in grey, but got {image.dtype} of shape {image.shape}'
        )
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def name_of(image: ImageInput) -> str | None:
    """The path of an image; None for one that is in memory."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else None

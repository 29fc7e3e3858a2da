"""EncodedBatch: a batch of which the JPEG files are decoded where the model is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.nn.functional import interpolate

from .bad_images import BadImages
from .errors import TooManyBadImagesError, UnreadableImage
from .reading import read_image

# Pixels that are decoded at a time: 0.8 GB. A batch of large photographs would not fit beside a model.
AT_ONCE = 2**28
# What libjpeg fills up with where data is missing.
FILLED_UP = 128

# From files, uint8 (length,) on the CPU, to images, uint8 (3, H, W), RGB, on a device; None for what cannot be decoded.
Decoder = Callable[[list[Tensor]], Sequence[Tensor | None]]


class Crop(NamedTuple):
    """What becomes of an image that is decoded later.

    Args:
        box (tuple[int, int, int, int]): Top, left, height and width in its pixels.
        flip (bool): Whether left and right change places.
        size (tuple[int, int]): Height and width to come out.
        interpolation (str): 'bilinear' or 'bicubic', anti-aliased.
        shape (tuple[int, int]): Height and width of the whole image.
    """

    box: tuple[int, int, int, int]
    flip: bool
    size: tuple[int, int]
    interpolation: str
    shape: tuple[int, int]


@dataclass
class EncodedBatch:
    """JPEG files and what is to become of them, with the pixels of the other images of a batch.

    All files lie in one tensor: each tensor that comes from a data worker takes one of the files that a process may
    have open.

    Args:
        data (Tensor): uint8 (bytes,), the files one behind the other.
        lengths (list[int]): Bytes of each file.
        crops (list[Crop]): Of each file.
        sources (list[str]): Path, or another name, of each file.
        places (list[int]): Where in the batch each file's image goes.
        pixels (Tensor, optional): uint8 (M, 3, H, W), BGR: the images that were decoded by the worker, in the batch's
            other places. Defaults to None: there are none.
    """

    data: Tensor
    lengths: list[int]
    crops: list[Crop]
    sources: list[str]
    places: list[int]
    pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths) + (0 if self.pixels is None else len(self.pixels))

    def pin_memory(self, *_: Any) -> EncodedBatch:
        """For torch's data loader: the pixels go to the device as they are, the files through a decoder."""
        if self.pixels is not None:
            self.pixels = self.pixels.pin_memory()
        return self

    def decode(self, decoder: Decoder, device: torch.device, bad_images: BadImages | None = None) -> Tensor:
        """Decode the files, cut out the boxes, resize and flip them.

        What the decoder cannot decode is read as everywhere, by :func:`nepa_mm.datasets.read_image`; so is an image
        that ends in the grey with which decoders fill up what is missing, to see if it does.

        Args:
            decoder (Decoder): Decodes on the device.
            device (torch.device): The device.
            bad_images (BadImages, optional): Where images are noted that cannot be read. The next one of the batch that
                can, the first after the last, then takes the place of each. Defaults to None: they are errors.

        Returns:
            Tensor: uint8 (len(self), 3, H, W), BGR, on the device.

        Raises:
            UnreadableImage: An image cannot be read; names the file.
            TooManyBadImagesError: More are bad than ``bad_images`` bears, or all of the batch.
        """
        rgb = torch.empty((len(self), 3, *self.crops[0].size), dtype=torch.uint8, device=device)
        bad = []
        for part in self._parts():
            for i, image in zip(part, self._images(part, decoder), strict=True):
                if isinstance(image, Tensor):
                    rgb[self.places[i]] = cut(image.to(device), self.crops[i])
                elif bad_images is None:
                    raise image
                else:
                    bad_images.add(image)
                    bad.append(self.places[i])
        batch = rgb.flip(1)
        if self.pixels is not None:
            places = sorted(set(range(len(self))).difference(self.places))
            pixels = self.pixels.to(device, non_blocking=True)
            for place, image in zip(places, pixels, strict=True):
                batch[place] = image
        if len(bad) == len(self):
            raise TooManyBadImagesError(f'none of the {len(self):,} images of a batch can be read')
        for place in bad:
            batch[place] = batch[_next(place, bad, len(self))]
        return batch

    def _parts(self) -> Iterator[list[int]]:
        """Numbers of files, as many at a time as are decoded together."""
        part: list[int] = []
        pixels = 0
        for i, crop in enumerate(self.crops):
            more = crop.shape[0] * crop.shape[1]
            if part and pixels + more > AT_ONCE:
                yield part
                part, pixels = [], 0
            part.append(i)
            pixels += more
        yield part

    def _images(self, part: list[int], decoder: Decoder) -> list[Tensor | UnreadableImage]:
        """The images, uint8 (3, H, W), RGB, of some files, and of each that is damaged the error."""
        files = self.data.split(self.lengths)
        images = list(decoder([files[i] for i in part]))
        known = [n for n, i in enumerate(part) if _has_shape(images[n], self.crops[i].shape)]
        # One look at the device for all of them.
        corners = [images[n][:, -1, -1] for n in known]  # type: ignore[index]
        grey = (torch.stack(corners) == FILLED_UP).all(1).tolist() if corners else []
        sound = {n for n, is_grey in zip(known, grey, strict=True) if not is_grey}
        found: list[Tensor | UnreadableImage] = []
        for n, i in enumerate(part):
            image = images[n]
            if n in sound and image is not None:
                found.append(image)
                continue
            height, width = self.crops[i].shape  # which the worker has found to be allowed
            try:
                read = read_image(files[i].numpy().tobytes(), self.sources[i], max_pixels=height * width)
            except UnreadableImage as error:
                found.append(error)
            else:
                found.append(torch.from_numpy(read).permute(2, 0, 1).flip(0))
        return found


def cut(image: Tensor, crop: Crop) -> Tensor:
    """Cut a box out of an image, resize and flip it.

    Args:
        image (Tensor): uint8 (3, H, W), on any device.
        crop (Crop): What is asked for.

    Returns:
        Tensor: float32 (3, *crop.size), whole numbers in 0..255.
    """
    top, left, height, width = crop.box
    # GPUs resize numbers with a fraction only. The filters are PIL's, as on the CPU.
    box = image[None, :, top : top + height, left : left + width].float()
    resized = interpolate(box, crop.size, mode=crop.interpolation, antialias=True)[0].round().clamp(0, 255)
    return resized.flip(-1) if crop.flip else resized


@FUNCTIONS.register_module()
def collate_encoded(data_batch: Sequence[dict]) -> dict:
    """Make a batch of what ``DrawRandomResizedCrop`` and ``PackInputs(algorithm_keys=['crop'])`` give.

    Args:
        data_batch (Sequence[dict]): Samples: ``inputs``, uint8, the bytes (length,) of a JPEG or pixels (3, H, W), BGR;
            ``data_samples`` with ``crop`` and ``img_path``.

    Returns:
        dict: ``inputs``, an :class:`EncodedBatch`, or uint8 (B, 3, H, W) if there is no JPEG in it; the rest as
        mmengine's ``default_collate`` has it.

    Raises:
        ValueError: A JPEG comes without its ``crop``.
    """
    places = [i for i, sample in enumerate(data_batch) if sample['inputs'].ndim == 1]
    if not places:
        return default_collate(data_batch)
    samples = [data_batch[i]['data_samples'] for i in places]
    if not all('crop' in sample for sample in samples):
        raise ValueError(
            'collate_encoded: a JPEG comes without its crop; the pipeline must end in '
            "dict(type='DrawRandomResizedCrop', ...), dict(type='PackInputs', algorithm_keys=['crop'])"
        )
    files = [data_batch[i]['inputs'] for i in places]
    others = [sample['inputs'] for sample in data_batch if sample['inputs'].ndim != 1]
    inputs = EncodedBatch(
        data=torch.cat(files),
        lengths=[len(file) for file in files],
        crops=[sample.crop for sample in samples],
        sources=[str(sample.get('img_path')) for sample in samples],
        places=places,
        pixels=torch.stack(others) if others else None,
    )
    rest = [{key: value for key, value in sample.items() if key != 'inputs'} for sample in data_batch]
    return {'inputs': inputs, **default_collate(rest)}


def _has_shape(image: Tensor | None, shape: tuple[int, int]) -> bool:
    return image is not None and tuple(image.shape) == (3, *shape)


def _next(place: int, bad: list[int], count: int) -> int:
    """The place behind this one, in a circle, that is not bad."""
    return next(i % count for i in range(place + 1, place + count) if i % count not in bad)

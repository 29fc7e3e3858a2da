"""Images per second that one GPU has been seen to train, and what they say of another model or GPU."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nepa_mm.models.backbones.archs import check_arch

from .flops import ViTShape, vit_flops, vit_shape
from .plan_gpus import GPUS


class MeasuredError(ValueError):
    """A file of measured figures is not one, or names what nothing knows."""


@dataclass(frozen=True)
class Rate:
    """Rate of NEPA's pretraining step on one GPU: of forward and backward if measured, of a whole run if published.

    Args:
        gpu (str): Key of :data:`~nepa_mm.benchmark.plan_gpus.GPUS`.
        arch (str): Of the NEPAViT, such as 'base'.
        mlp (str): 'gelu' or 'swiglu'.
        images_per_second (float): Of one GPU.
        kind (str): 'measured' by this package's benchmark, or 'published' by others.
        source (str): Command, machine and day, or the publication.
        patch_size (int): Defaults to 14.
        image_size (int): Side of the square images. Defaults to 224.
        compiled (bool): Whether by ``torch.compile``. Defaults to False.
        gpus (int): GPUs of the run that it was seen in. Defaults to 1.
    """

    gpu: str
    arch: str
    mlp: str
    images_per_second: float
    kind: str
    source: str
    patch_size: int = 14
    image_size: int = 224
    compiled: bool = False
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise MeasuredError(f'a rate is of GPU {self.gpu!r}; the known ones are {", ".join(GPUS)}')
        if self.kind not in ('measured', 'published') or not self.images_per_second > 0:
            raise MeasuredError(
                f'a rate is {self.images_per_second!r} images per second, {self.kind!r}; expected more than 0, and '
                "'measured' or 'published'"
            )
        check_arch(self.arch)

    @property
    def shape(self) -> ViTShape:
        """What was trained."""
        config = dict(arch=self.arch, mlp=self.mlp, patch_size=self.patch_size)
        return vit_shape(config, (self.image_size, self.image_size), causal=True)

    @property
    def with_update(self) -> bool:
        """Whether clipping, optimizer and average are in it."""
        return self.kind == 'published'

    @property
    def share(self) -> float:
        """Share of the GPU's published rate that the step's FLOPs are."""
        return self.images_per_second * work(self.shape) / (GPUS[self.gpu].tflops * 1e12)


@dataclass(frozen=True)
class Estimate:
    """Images per second of one GPU, and where that is from.

    Args:
        images_per_second (float): Of one GPU.
        kind (str): 'measured', 'published' or 'extrapolated'.
        source (str): From what.
        gpus (int): GPUs of the run that it, or what it is extrapolated from, was seen in.
        with_update (bool): Whether clipping, optimizer and average are in it, or in what it is extrapolated from.
    """

    images_per_second: float
    kind: str
    source: str
    gpus: int
    with_update: bool


def work(shape: ViTShape) -> float:
    """FLOPs of one image in training that take a GPU's time: of causal attention half, of what is checkpointed more."""
    return vit_flops(shape, skip_masked=True, recompute=True).training


def estimate_rate(
    rates: Sequence[Rate], gpu: str, shape: ViTShape, flops: float, compiled: bool, pretrains: bool
) -> Estimate:
    """Images per second of a step on a GPU, from what is known.

    A rate of the same model on the same GPU is taken as it is, whatever batch it was seen at. Otherwise the known step
    that is nearest in FLOPs, on that GPU if there is one, tells the share of the GPU's published rate, and this step is
    taken to reach the same.

    Args:
        rates (Sequence[Rate]): What is known.
        gpu (str): Key of :data:`~nepa_mm.benchmark.plan_gpus.GPUS`.
        shape (ViTShape): The backbone.
        flops (float): Of one image in training, all that a GPU does: backbone, neck and heads.
        compiled (bool): Whether by ``torch.compile``.
        pretrains (bool): Whether the step is NEPA's pretraining, as that of the rates.

    Returns:
        Estimate: With its kind and source.

    Raises:
        MeasuredError: ``rates`` is empty.
    """
    if not rates:
        raise MeasuredError('there is no rate to extrapolate from; leave the published ones in')

    def distance(rate: Rate) -> tuple:
        return (
            rate.gpu != gpu,
            rate.kind != 'measured',
            rate.compiled != compiled,
            abs(math.log(work(rate.shape) / flops)),
        )

    nearest = min(rates, key=distance)
    same = [r for r in rates if pretrains and r.gpu == gpu and r.shape == shape and r.compiled == compiled]
    if same:
        best = min(same, key=distance)
        return Estimate(best.images_per_second, best.kind, best.source, best.gpus, best.with_update)
    value = nearest.share * GPUS[gpu].tflops * 1e12 / flops
    source = (
        f'{100 * nearest.share:.0f} % of {GPUS[gpu].tflops:g} TFLOP/s, as {nearest.arch} ({nearest.mlp}'
        f'{", compiled" if nearest.compiled else ""}) reached on {nearest.gpu}: {nearest.kind}, {nearest.source}'
    )
    return Estimate(value, 'extrapolated', source, nearest.gpus, nearest.with_update)


def read_rates(files: Iterable[str | Path]) -> list[Rate]:
    """Rates of JSON files.

    Args:
        files (Iterable[str | Path]): Files with a list of rates under the key 'rates', as ``make gpu-check`` writes.

    Returns:
        list[Rate]: Those of all files, in order.

    Raises:
        MeasuredError: A file does not exist, or holds something else.
    """
    rates = []
    for file in files:
        try:
            entries = json.loads(Path(file).read_text())['rates']
            rates += [Rate(**entry) for entry in entries]
        except FileNotFoundError as error:
            raise MeasuredError(f'{str(file)!r} does not exist; make gpu-check writes such a file') from error
        except (ValueError, KeyError, TypeError) as error:
            raise MeasuredError(
                f'{str(file)!r} holds no measured rates ({error}); expected the measured.json of make gpu-check'
            ) from error
    return rates


def write_rates(rates: Sequence[Rate], file: str | Path, about: Mapping[str, Any]) -> None:
    """Write a file that :func:`read_rates` reads.

    Args:
        rates (Sequence[Rate]): The rates.
        file (str | Path): Where to.
        about (Mapping[str, Any]): What a reader should know, such as the machine.
    """
    content = dict(about=dict(about), rates=[asdict(rate) for rate in rates])
    Path(file).write_text(json.dumps(content, indent=1) + '\n')

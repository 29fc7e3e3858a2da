"""Feature maps that know the image they were computed from."""

from collections.abc import Iterable

from torch import Tensor


class FeatureMaps(tuple[Tensor, ...]):
    """A tuple of feature maps that carries the size of the image the backbone saw.

    A ViT with patch size 14 sees a 512 x 512 image as 37 x 37 patches that cover 518 x 518 pixels. A map alone does
    not tell these two apart; what resamples it must know, or everything it draws is shifted by up to a percent.
    Being a tuple, it passes through mmseg's and mmpretrain's heads and necks like the plain one.

    Args:
        maps (Iterable[Tensor]): Maps of shape (B, C, H_grid, W_grid).
        image_size (tuple[int, int]): Height and width of the input image in pixels, before any padding to whole
            patches.
    """

    image_size: tuple[int, int]

    def __new__(cls, maps: Iterable[Tensor], image_size: tuple[int, int]) -> 'FeatureMaps':
        self = super().__new__(cls, maps)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        return self

    def __getnewargs__(self) -> tuple:
        return tuple(self), self.image_size

    def __repr__(self) -> str:
        shapes = ', '.join(str(tuple(m.shape)) for m in self)
        return f'FeatureMaps([{shapes}], image_size={self.image_size})'

"""BGR into RGB on the device, for preprocessors of the hosts that wait for it to do so."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


class FlipChannels:
    """Turns the channels of a batch around by a kernel; inherited from before a preprocessor with ``bgr_to_rgb``.

    mmengine's preprocessors index with a list, ``images[:, [2, 1, 0]]``, and a list of indices becomes a tensor that is
    copied to the device, for which the host waits at every iteration until the device has done all that came before;
    mmseg's does so for each image. Results are the same. Images of another number of channels than three stay as they
    are.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What the host's forward asks for: nothing is left to do there.
        self._flips, self._channel_conversion = self._channel_conversion, False

    def forward(self: Any, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Preprocess a batch.

        Args:
            data (dict[str, Any]): ``inputs``, images (B, C, H, W) or a list of (C, H, W) or of (B, C, H, W), and what
                else the host's preprocessor takes.
            training (bool): As in the host's. Defaults to False.

        Returns:
            dict[str, Any]: As the host's.
        """
        if self._flips:
            data = dict(data, inputs=_flipped(self.cast_data(data['inputs'])))
        result: dict[str, Any] = super().forward(data, training)  # type: ignore[misc]
        return result


def _flipped(images: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
    if isinstance(images, Tensor):
        return images.flip(-3) if images.shape[-3] == 3 else images
    return [image.flip(-3) if image.shape[-3] == 3 else image for image in images]

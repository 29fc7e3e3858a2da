"""mmseg's preprocessor, whose images turn RGB without the host waiting for the device."""

from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor

from .async_channels import FlipChannels


@MODELS.register_module()
class AsyncSegDataPreProcessor(FlipChannels, SegDataPreProcessor):
    """mmseg's ``SegDataPreProcessor``, with its arguments; see :class:`FlipChannels`."""

"""mmpretrain's preprocessor of pretraining, whose images turn RGB without the host waiting for the device."""

from mmengine.registry import MODELS
from mmpretrain.models.utils import SelfSupDataPreprocessor

from .async_channels import FlipChannels


@MODELS.register_module()
class AsyncSelfSupDataPreprocessor(FlipChannels, SelfSupDataPreprocessor):
    """mmpretrain's ``SelfSupDataPreprocessor``, with its arguments; see :class:`FlipChannels`."""

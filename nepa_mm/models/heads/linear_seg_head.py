"""LinearSegHead: one linear classifier per pixel, for what frozen features hold."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from .async_seg_heads import AsyncAccuracy


@MODELS.register_module()
class LinearSegHead(AsyncAccuracy, BaseDecodeHead):
    """BatchNorm without weights and a 1 x 1 convolution, on one map or on several that are concatenated.

    The segmentation counterpart of the linear probe: BatchNorm brings the channels, whose scales differ by layer, to
    unit variance, and the convolution is the only thing that learns. mmseg's ``FCNHead(num_convs=0)`` has no such norm.

    Maps of a grid that does not tile the image (patch 14 on 512 x 512) belong through
    ``PatchPyramid(strides=(patch_size,), upsample='none')`` first, which has no parameters.

    Args:
        in_channels (int | Sequence[int]): Channels of the map, or of each of the maps.
        num_classes (int): Number of classes.
        in_index (int | Sequence[int], optional): Which of the maps to read, as many as ``in_channels``. Defaults to
            None: the last ones.
        norm_cfg (dict): The norm. Defaults to SyncBN without weights, which becomes BN outside of distributed training.
        dropout_ratio (float): Dropout of whole channels before the classifier. Defaults to 0.
        **kwargs: As in mmseg's ``BaseDecodeHead``: ``loss_decode``, ``ignore_index``, ``out_channels``, ...

    Raises:
        ValueError: ``in_index`` does not name as many maps as ``in_channels``.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        in_index: int | Sequence[int] | None = None,
        norm_cfg: dict = dict(type='SyncBN', affine=False),  # noqa: B006 (never changed)
        dropout_ratio: float = 0.0,
        **kwargs,
    ) -> None:
        channels = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        if in_index is None:
            in_index = range(-len(channels), 0)
        indices = [in_index] if isinstance(in_index, int) else list(in_index)
        if not channels or len(channels) != len(indices):
            raise ValueError(
                f'LinearSegHead: in_channels={in_channels!r} and in_index={in_index!r} do not go together; both are an '
                'integer, for one map, or lists of the same length.'
            )
        super().__init__(
            channels,
            channels=sum(channels),
            num_classes=num_classes,
            in_index=indices,
            input_transform='resize_concat',
            norm_cfg=norm_cfg,
            dropout_ratio=dropout_ratio,
            **kwargs,
        )
        self.norm = build_norm_layer(norm_cfg, self.channels)[1]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, H_grid, W_grid) from maps (B, C_i, H_grid, W_grid); mmseg resizes them."""
        return self.cls_seg(self.norm(self._transform_inputs(inputs)))

"""NEPAClsHead: the classifier of NEPA's fine-tuning."""

from collections.abc import Sequence

from mmengine.registry import MODELS
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from ..backbones.nepa_layers import NORM_EPS


@MODELS.register_module()
class NEPAClsHead(LinearClsHead):
    """Linear classifier behind a LayerNorm of its own, starting from zero.

    The mean of patch tokens (``out_type='avg_featmap'``) leaves the unit scale that the final norm gave each token; the
    LayerNorm restores it. Source: the release's fine-tuning (``fc_norm``, ``classifier``).

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Width D of the feature (B, D).
        norm (bool): LayerNorm before the classifier. Defaults to True.
        init_cfg (dict, optional): Defaults to zeros for the classifier.
        **kwargs: As in mmpretrain's ``LinearClsHead``: ``loss``, ``topk``, ``cal_acc``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        norm: bool = True,
        init_cfg: dict | None = dict(type='Constant', layer='Linear', val=0.0, bias=0.0),  # noqa: B006 (mmengine copies it)
        **kwargs,
    ) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels, init_cfg=init_cfg, **kwargs)
        self.fc_norm = nn.LayerNorm(in_channels, eps=NORM_EPS) if norm else nn.Identity()

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """Normalised feature (B, D) of the last entry of the backbone's output."""
        return self.fc_norm(feats[-1])

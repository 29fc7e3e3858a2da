"""What a training step of a config's model computes and keeps, found without computing it: on fake tensors."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nepa_mm.models import NEPAHead
from nepa_mm.models.utils import FeatureMaps

from .flops import Flops


@dataclass(frozen=True)
class ModelCount:
    """Parameters, kept bytes and the work of what stands on the backbone.

    Args:
        parameters (int): Of the model.
        learning (int): Those that learn.
        backbone_parameters (int): Of the backbone.
        largest_layer (int): Parameters of the backbone's largest layer, the unit that FSDP gathers.
        head_flops (Flops): Of neck, heads and losses, of one image.
        kept_per_image (int): Bytes that the backward pass needs of one image.
        kept_once (int): Bytes that it needs whatever the batch: weights cast to bfloat16, position tables.
        kept_per_image_cp (int): As ``kept_per_image``, with activation checkpointing of every layer: the inputs of all
            layers, the inside of one, and what stands on them.
        kept_once_cp (int): As ``kept_once``, with activation checkpointing.
    """

    parameters: int
    learning: int
    backbone_parameters: int
    largest_layer: int
    head_flops: Flops
    kept_per_image: int
    kept_once: int
    kept_per_image_cp: int
    kept_once_cp: int


def count_model(
    model: Mapping[str, Any], scope: str, image_size: tuple[int, int], amp: bool, device: str = 'cuda'
) -> ModelCount:
    """Count one training step of a model.

    The model is built on the meta device and run on fake tensors: shapes and dtypes flow through its own code, no
    number is computed, no weight takes memory and no GPU is needed. What is kept is what a GPU's autocast and its flash
    attention keep, without ``torch.compile``, which keeps less.

    Args:
        model (Mapping[str, Any]): Config of an ``NEPA``, ``ImageClassifier`` or ``EncoderDecoder`` with a ``NEPAViT``.
        scope (str): Registry scope to build it from.
        image_size (tuple[int, int]): Height and width that it trains on.
        amp (bool): bfloat16 autocast.
        device (str): 'cuda' or 'cpu', whose kernels are counted. Defaults to 'cuda'.

    Returns:
        ModelCount: The figures.
    """
    config = copy.deepcopy(dict(model))
    config['backbone'] = {k: v for k, v in config['backbone'].items() if k not in ('init_cfg', 'with_cp')}
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        network = revert_sync_batchnorm(MODELS.build(config)).train()  # SyncBN would ask for a process group
    backbone: Any = network.backbone
    layers: nn.ModuleList = backbone.layers
    with FakeTensorMode():
        _to_fake(network, device)
        step = Step(network, image_size, amp, device)
        per_image, once = step.kept()
        backbone.with_cp = True
        inputs, once_cp = step.kept()
        # The backward pass on a GPU would ask for one, even of fake tensors; its products are the same.
        _to_fake(network, 'cpu')
        head_flops = Step(network, image_size, amp, 'cpu').flops_of_rest()
        return ModelCount(
            parameters=_count(network),
            learning=sum(p.numel() for p in network.parameters() if p.requires_grad),
            backbone_parameters=_count(backbone),
            largest_layer=max(_count(layer) for layer in layers),
            head_flops=head_flops,
            kept_per_image=per_image,
            kept_once=once,
            # While one layer's backward pass runs, its inside is there again.
            kept_per_image_cp=inputs + (per_image - inputs) // len(layers),
            kept_once_cp=once_cp,
        )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _to_fake(model: nn.Module, device: str) -> None:
    """Parameters and buffers become fake ones on a device; inside of ``FakeTensorMode``."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


class Step:
    """A model's forward pass in training, in two parts: the backbone, and what stands on it.

    Args:
        model (Any): An ``NEPA``, ``ImageClassifier`` or ``EncoderDecoder`` in train mode, real or of fake tensors.
        image_size (tuple[int, int]): Height and width of the images.
        amp (bool): bfloat16 autocast.
        device (str): Where the model is, or is thought to be.
    """

    def __init__(self, model: Any, image_size: tuple[int, int], amp: bool, device: str) -> None:
        self.model = model
        self.size = image_size
        self.amp = amp
        self.device = device

    def kept(self) -> tuple[int, int]:
        """Bytes that the backward pass needs, per image and whatever the batch."""
        # One image alone would leave a BatchNorm after a global pooling without a variance.
        two, three = self._kept(2), self._kept(3)
        return three - two, 3 * two - 2 * three

    def flops_of_rest(self) -> Flops:
        """FLOPs per image of what stands on the backbone."""
        batch = 2
        features = self._detached(batch)
        with FlopCounterMode(display=False) as counter:
            with self._as_in_training():
                loss = self._loss(features)
            forward = counter.get_total_flops()
            loss.backward()
        return Flops(forward / batch, counter.get_total_flops() / batch)

    @contextmanager
    def _as_in_training(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.amp:
                stack.enter_context(_autocast(self.device))
            if self.device == 'cuda':
                stack.enter_context(_FusedAttention())
            yield

    def _kept(self, batch: int) -> int:
        owned = {_storage(t) for t in (*self.model.parameters(), *self.model.buffers())}
        kept: dict[int, Tensor] = {}  # the tensors too: a freed one's address is taken again

        def keep(tensor: Tensor) -> Tensor:
            kept[_storage(tensor)] = tensor
            return tensor

        with (
            self._as_in_training(),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            self._loss(self._features(batch))
        return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in owned)

    def _features(self, batch: int) -> tuple[Tensor, ...]:
        images = torch.empty(batch, self.model.backbone.in_channels, *self.size, device=self.device)
        pretrains = isinstance(getattr(self.model, 'head', None), NEPAHead)
        return self.model.backbone.predict_next(images) if pretrains else self.model.backbone(images)

    def _detached(self, batch: int) -> tuple[Tensor, ...]:
        """The backbone's features as leafs, so that only what follows is counted."""
        with self._as_in_training():
            features = self._features(batch)
        leafs = [f.detach().requires_grad_(f.requires_grad) for f in features]
        return FeatureMaps(leafs, features.image_size) if isinstance(features, FeatureMaps) else tuple(leafs)

    def _loss(self, features: tuple[Tensor, ...]) -> Tensor:
        head = getattr(self.model, 'head', None)
        if isinstance(head, NEPAHead):
            return head.loss(*features)['loss']
        if self.model.with_neck:
            features = self.model.neck(features)
        if head is not None:
            return _cross_entropy(head(features))
        # mmseg resizes logits to the labels. Its losses also count hits, which fake tensors cannot.
        heads = [self.model.decode_head]
        if self.model.with_auxiliary_head:
            others = self.model.auxiliary_head
            heads += others if isinstance(others, nn.ModuleList) else [others]
        logits = [F.interpolate(h(features), self.size, mode='bilinear', align_corners=h.align_corners) for h in heads]
        return torch.stack([_cross_entropy(part) for part in logits]).sum()


@contextmanager
def _autocast(device: str) -> Iterator[None]:
    """bfloat16 autocast, also of a GPU that is not there: ``torch.autocast`` would switch itself off."""
    before, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before)
        torch.set_autocast_dtype(device, dtype)


class _FusedAttention(TorchFunctionMode):
    """The fused kernels of a GPU for attention; without a GPU torch would choose the T x T matrix."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or kwargs.get('attn_mask') is not None:
            return func(*args, **kwargs)
        q, k, v = args
        dropout, causal = kwargs.get('dropout_p', 0.0), kwargs.get('is_causal', False)
        if q.dtype == torch.float32:
            fused = torch.ops.aten._scaled_dot_product_efficient_attention
            return fused(q, k, v, None, q.requires_grad, dropout, causal)[0]
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout, causal)[0]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _cross_entropy(logits: Tensor) -> Tensor:
    """Of logits (B, C, ...) and any labels."""
    labels = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits.float(), labels)

"""Layer-wise learning-rate decay for classifier and segmentor alike, in few parameter groups."""

from typing import Any

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

PARAMWISE_KEYS = (
    'layer_decay_rate',
    'decay_last_layer',
    'bias_decay_mult',
    'flat_decay_mult',
    'custom_keys',
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneLayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Give each layer of ``model.backbone`` a smaller learning rate than the one above it.

    mmpretrain's constructor asks the whole model for ``get_layer_depth``, which mmseg's ``EncoderDecoder`` lacks, and
    makes one group per parameter; mmseg's looks for 'BEiT' or 'MAE' in the name of the backbone's class. This one asks
    the backbone, wherever it sits, and makes one group per (layer, learning rate, weight decay), without decay over
    layers one per (learning rate, weight decay).

    A parameter's rate is ``lr * layer_decay_rate ** k``: k = 0 for the last layer, the final norm and everything
    outside the backbone, 1 for the layer below, ..., ``num_layers`` for the embeddings (the release's rule). With
    mmengine's schedulers that decay is constant. Groups also carry ``layer_decay_rate`` and k, their
    ``depth_from_top``, from which :class:`nepa_mm.engine.LayerWiseCosineLR` makes what changes by layer over training.
    Source: NEPA (arXiv 2512.16922), appendix; the release's fine-tuning.

    ``paramwise_cfg`` takes:

    - ``layer_decay_rate`` (float): In (0, 1]; 1 for no decay over layers. Defaults to 1.
    - ``decay_last_layer`` (bool): Count from 1 at the last layer, as BEiT's and MAE's code and mmseg's constructor do.
      Defaults to False.
    - ``bias_decay_mult`` (float): Factor on the weight decay of biases. Defaults to 0.
    - ``flat_decay_mult`` (float): The same for other 1-D parameters: norms, LayerScale. Defaults to 0.
    - ``custom_keys`` (dict): Part of a parameter's name to ``dict(lr_mult=, decay_mult=)``; the longest match holds,
      and its ``decay_mult`` replaces the two above. As in mmengine.

    Raises:
        ValueError: ``paramwise_cfg`` holds other keys, a rate outside of (0, 1], or a custom key that matches nothing.
        TypeError: ``model.backbone`` has no ``get_layer_depth``.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper of a model."""
        model = model.module if is_model_wrapper(model) else model  # type: ignore[assignment]
        optimizer = dict(self.optimizer_cfg)
        groups = self.param_groups(model)
        optimizer['params'] = groups
        _log_table(groups)
        wrapper = dict(self.optim_wrapper_cfg)
        wrapper.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(wrapper, default_args=dict(optimizer=OPTIMIZERS.build(optimizer)))

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameters that learn, by learning rate and weight decay.

        Args:
            model (nn.Module): A model with a ``backbone``.

        Returns:
            list[dict[str, Any]]: Groups with ``params``, ``param_names``, ``lr`` and ``weight_decay``, and where the
            rate decays over layers ``depth_from_top`` and ``layer_decay_rate``; lowest layer first.
        """
        cfg = self._checked_paramwise_cfg()
        backbone: Any = getattr(model, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise TypeError(
                f'BackboneLayerDecayConstructor: {type(model).__name__}.backbone is {type(backbone).__name__}, which '
                'has no get_layer_depth(name, prefix); use NEPAViT, or another constructor.'
            )
        lr, weight_decay = self.optimizer_cfg['lr'], self.optimizer_cfg.get('weight_decay', 0.0)
        by_layer = cfg['layer_decay_rate'] < 1
        groups: dict[tuple[int, float, float], dict[str, Any]] = {}
        for name, param in model.named_parameters():
            if not param.requires_grad:
                continue
            depth, num_depths = backbone.get_layer_depth(name, 'backbone.')
            top = num_depths - 1 if cfg['decay_last_layer'] else num_depths - 2
            from_top = max(0, top - depth) if by_layer else 0
            scale = cfg['layer_decay_rate'] ** from_top
            decay_mult = 1.0
            if param.ndim == 1:
                decay_mult = cfg['bias_decay_mult' if name.endswith('.bias') else 'flat_decay_mult']
            key = max((k for k in cfg['custom_keys'] if k in name), key=len, default=None)
            custom = cfg['custom_keys'][key] if key is not None else {}
            rate = lr * scale * custom.get('lr_mult', 1.0)
            decay = weight_decay * custom.get('decay_mult', decay_mult)
            group = groups.setdefault(
                (from_top, rate, decay), dict(params=[], param_names=[], lr=rate, weight_decay=decay, depth=depth)
            )
            if by_layer:
                group.update(depth_from_top=from_top, layer_decay_rate=cfg['layer_decay_rate'])
            group['params'].append(param)
            group['param_names'].append(name)
        unused = [key for key in cfg['custom_keys'] if not any(key in name for name, _ in model.named_parameters())]
        if unused:
            raise ValueError(f'custom_keys {unused} match no parameter; names are as in model.named_parameters().')
        return sorted(groups.values(), key=lambda g: (g.pop('depth'), -g['weight_decay']))

    def _checked_paramwise_cfg(self) -> dict[str, Any]:
        given = dict(self.paramwise_cfg or {})
        unknown = sorted(set(given) - set(PARAMWISE_KEYS))
        if unknown:
            raise ValueError(
                f'BackboneLayerDecayConstructor: paramwise_cfg has no {unknown}; it takes {list(PARAMWISE_KEYS)}.'
            )
        defaults: dict[str, Any] = dict(
            layer_decay_rate=1.0, decay_last_layer=False, bias_decay_mult=0.0, flat_decay_mult=0.0, custom_keys={}
        )
        cfg = defaults | given
        rate = cfg['layer_decay_rate']
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f'layer_decay_rate={rate!r} is no number in (0, 1].')
        for key, custom in cfg['custom_keys'].items():
            if not set(custom) <= {'lr_mult', 'decay_mult'}:
                raise ValueError(f'custom_keys[{key!r}]={dict(custom)} takes lr_mult and decay_mult only.')
        if 'lr' not in self.optimizer_cfg:
            raise ValueError(f'optimizer={dict(self.optimizer_cfg)} needs an lr for layers to differ from.')
        return cfg


def _log_table(groups: list[dict[str, Any]]) -> None:
    lines = ['Parameter groups:', f'  {"lr":>10} {"decay":>7} {"tensors":>7}  first']
    lines += [
        f'  {g["lr"]:>10.3g} {g["weight_decay"]:>7.3g} {len(g["params"]):>7}  {g["param_names"][0]}' for g in groups
    ]
    print_log('\n'.join(lines), logger='current')

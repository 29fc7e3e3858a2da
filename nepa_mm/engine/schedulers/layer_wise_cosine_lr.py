"""Warm-up and cosine per iteration, with a layer-wise warm-up or a rising layer decay."""

from __future__ import annotations

import math
import warnings
from typing import Any

from mmengine.optim import BaseOptimWrapper, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch.optim import Optimizer

RISES = ('linear', 'cosine')


@PARAM_SCHEDULERS.register_module()
class LayerWiseCosineLR(_ParamScheduler):
    """Linear warm-up from 0, then half a cosine to 0, with a learning rate of its own for each layer.

    A parameter group's rate is its base rate times :meth:`multiplier`, for N steps of which W warm up and a group whose
    layer decays by ``a = layer_decay_rate ** depth_from_top``. The rate and the depths are stated once, in the groups
    that :class:`nepa_mm.engine.BackboneLayerDecayConstructor` makes (``paramwise_cfg=dict(layer_decay_rate=...)``);
    groups of other constructors have a = 1.

    - By default: ``a * step / W`` while ``step < W``, then ``a * 0.5 * (1 + cos(pi * (step - W) / (N - W)))``. This is
      the schedule of pretraining, where a = 1 (paper and release).
    - ``layer_wise_warmup=True``: the same with a warm-up of its own for each layer, ``w = clamp(W - round(W * a), 1,
      N)`` for W: the top starts at once, and the lower a layer, the longer it warms up (the release's fine-tuning).
    - ``rise``: the layer decay rises from the groups' rate to ``layer_decay_end`` over all N steps, along a line (the
      paper's fine-tuning) or half a cosine (the release's code for it).

    A step is an *update of the weights*: where the optimizer wrapper accumulates gradients over k iterations, the rate
    changes every k-th iteration, and W and N are the numbers of updates. A run with accumulation thus sees the rates
    of the run that it stands for. (mmengine steps its schedulers every iteration; its warm-up also starts above 0 and
    reaches the full rate one step early.)

    The rate depends on the step alone, so a resumed run continues bit for bit; it is set, not multiplied on what
    another scheduler has set. Values are asserted against the release's own in tests/test_engine.

    Args:
        optimizer (Optimizer | BaseOptimWrapper): Given by the runner.
        warmup (float): Length of the warm-up, in the unit of ``begin`` and ``end``. Defaults to 0.
        layer_wise_warmup (bool): See above. Defaults to False.
        rise (str, optional): 'linear' or 'cosine'; None for a constant layer decay. Defaults to None.
        layer_decay_end (float, optional): Layer decay rate at the end of a rise, at least the groups' rate and at most
            1; with ``rise`` only. Defaults to None.
        begin (int): First step. Defaults to 0.
        end (int): The step after the last. The runner fills in the length of the training.
        layer_decay_rate (None): Not taken: the parameter groups hold it, and stated twice it could differ.
        by_epoch (bool): Whether the above are epochs; then ``convert_to_iter_based=True`` has to stand beside it.
            Defaults to True, as in mmengine.
        last_step (int): As in mmengine. Defaults to -1.
        verbose (bool): As in mmengine. Defaults to False.

    Raises:
        ValueError: Epochs without ``convert_to_iter_based``; a warm-up that does not fit; ``rise`` without
            ``layer_decay_end`` or the reverse; ``rise`` with ``layer_wise_warmup``; either of them with groups that
            state no layer decay; or a ``layer_decay_rate`` here.
    """

    def __init__(
        self,
        optimizer: Optimizer | BaseOptimWrapper,
        *,
        end: int,
        begin: int = 0,
        warmup: float = 0,
        layer_wise_warmup: bool = False,
        rise: str | None = None,
        layer_decay_end: float | None = None,
        layer_decay_rate: None = None,
        by_epoch: bool = True,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        if by_epoch:
            raise ValueError(
                'LayerWiseCosineLR: the rate changes with every step, and a warm-up in whole epochs would train the '
                'first one at rate 0; add convert_to_iter_based=True, or count iterations (by_epoch=False).'
            )
        if layer_decay_rate is not None:
            raise ValueError(
                f'LayerWiseCosineLR: layer_decay_rate={layer_decay_rate} is stated in one place only, optim_wrapper.'
                "paramwise_cfg (constructor='BackboneLayerDecayConstructor'); the schedule reads it from there. Where "
                'it rises, layer_decay_end says to what.'
            )
        groups = optimizer.param_groups
        self.layer_decay_rate = _layer_decay_rate(groups)
        self.depths = [group.get('depth_from_top', 0) for group in groups]
        # mmengine steps its schedulers every iteration, whether or not the weights are updated in it.
        self.accumulation = getattr(optimizer, '_accumulative_counts', 1)
        self.first_step = begin // self.accumulation
        self.total_steps = -(-end // self.accumulation) - self.first_step
        self.warmup_steps = round(warmup / self.accumulation)
        self.layer_wise_warmup = layer_wise_warmup
        self.rise = rise
        self.layer_decay_end = layer_decay_end
        self._check()
        super().__init__(optimizer, 'lr', begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        epoch_length: int,
        end: float,
        begin: float = 0,
        warmup: float = 0,
        by_epoch: bool = True,
        **kwargs: Any,
    ) -> LayerWiseCosineLR:
        """Build from a config in epochs (``convert_to_iter_based=True``).

        Args:
            *args (Any): Positional arguments of the class.
            epoch_length (int): Iterations of an epoch.
            end (float): In epochs.
            begin (float): In epochs. Defaults to 0.
            warmup (float): In epochs. Defaults to 0.
            by_epoch (bool): True. Defaults to True.
            **kwargs (Any): Other arguments of the class.

        Returns:
            LayerWiseCosineLR: It counts iterations.
        """
        return cls(
            *args,
            begin=int(begin * epoch_length),
            end=int(end * epoch_length),
            warmup=warmup * epoch_length,
            by_epoch=False,
            **kwargs,
        )

    def multiplier(self, step: int, depth: int) -> float:
        """Factor on the base learning rate, the one before layer decay.

        Args:
            step (int): Updates made since ``begin``.
            depth (int): Depth from the top; 0 for the last layer and the head.

        Returns:
            float: From 0 to 1.
        """
        total, warmup = self.total_steps, self.warmup_steps
        scale = self._layer_decay_at(step) ** depth
        if self.layer_wise_warmup:
            warmup = min(max(warmup - round(warmup * min(scale, 1.0)), 1), total)
        if step < warmup:
            return scale * step / warmup
        return scale * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    def step(self) -> None:
        """Set the rates of the next iteration."""
        if self.accumulation == 1 or self._global_step != 0:
            super().step()
            return
        # The first iteration only accumulates, which mmengine takes for a forgotten optimizer.step().
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Detected call of `scheduler.step')
            super().step()

    def _layer_decay_at(self, step: int) -> float:
        if self.layer_decay_end is None:
            return self.layer_decay_rate
        progress = step / self.total_steps
        if self.rise == 'cosine':
            progress = 0.5 * (1 - math.cos(math.pi * progress))
        return self.layer_decay_rate + (self.layer_decay_end - self.layer_decay_rate) * progress

    def _get_value(self) -> list[float]:
        step = (self.begin + self.last_step) // self.accumulation - self.first_step
        return [
            # The groups' base values hold their layer decay already, for mmengine's schedulers.
            base / self.layer_decay_rate**depth * self.multiplier(step, depth)
            for base, depth in zip(self.base_values, self.depths, strict=True)
        ]

    def _check(self) -> None:
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ValueError(
                f'LayerWiseCosineLR: a warm-up of {self.warmup_steps} steps does not fit into {self.total_steps}; '
                'warmup is in the unit of begin and end (epochs with convert_to_iter_based=True, else iterations).'
            )
        if (self.rise is None) != (self.layer_decay_end is None) or self.rise not in (None, *RISES):
            raise ValueError(
                f'LayerWiseCosineLR: rise={self.rise!r} and layer_decay_end={self.layer_decay_end!r} belong together: '
                f'rise is one of {list(RISES)}, and layer_decay_end is where the layer decay rises to.'
            )
        if self.rise is not None and self.layer_wise_warmup:
            raise ValueError(
                'LayerWiseCosineLR: a layer-wise warm-up needs a constant layer decay; take rise or layer_wise_warmup.'
            )
        if (self.rise is not None or self.layer_wise_warmup) and self.layer_decay_rate == 1:
            raise ValueError(
                'LayerWiseCosineLR: rise and layer_wise_warmup need a layer decay, and the parameter groups have none; '
                "state it in optim_wrapper, constructor='BackboneLayerDecayConstructor', "
                'paramwise_cfg=dict(layer_decay_rate=...) below 1.'
            )
        if self.layer_decay_end is not None and not self.layer_decay_rate <= self.layer_decay_end <= 1:
            raise ValueError(
                f'LayerWiseCosineLR: layer_decay_end={self.layer_decay_end} does not lie between the layer_decay_rate '
                f'of the parameter groups, {self.layer_decay_rate}, and 1.'
            )


def _layer_decay_rate(groups: list[dict[str, Any]]) -> float:
    """The one layer decay rate that the parameter groups hold; 1 where they hold none."""
    # The wrapper's last group only carries the base learning rate for the log.
    rates = {group['layer_decay_rate'] for group in groups if 'layer_decay_rate' in group} or {1.0}
    if len(rates) > 1:
        raise ValueError(f'LayerWiseCosineLR: the parameter groups hold several layer decay rates: {sorted(rates)}.')
    return rates.pop()

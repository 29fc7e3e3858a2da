"""Runner, optimizer wrapper and what else drives a training run."""

from .hooks import ProbeHook
from .layer_decay import BackboneLayerDecayConstructor
from .optim_wrapper import AutocastOptimWrapper
from .runner import NEPARunner
from .schedulers import LayerWiseCosineLR

__all__ = ['AutocastOptimWrapper', 'BackboneLayerDecayConstructor', 'LayerWiseCosineLR', 'NEPARunner', 'ProbeHook']

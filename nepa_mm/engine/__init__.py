"""Runner, optimizer wrapper and what else drives a training run."""

from .finite_optim_wrapper import FiniteOptimWrapper
from .flexible_runner import NEPAFlexibleRunner
from .foreach_ema import ForeachEMA
from .fully_shard import FullyShardStrategy
from .hooks import (
    BadDataHook,
    BadNumbersError,
    BadNumbersHook,
    CollapseHook,
    ProbeHook,
    RunStopped,
    SafeCheckpointHook,
    StopOnSignalHook,
)
from .layer_decay import BackboneLayerDecayConstructor
from .message_hub import DeferredMessageHub
from .optim_wrapper import AutocastOptimWrapper
from .patient_vis_backend import PatientVisBackend
from .runner import NEPARunner
from .schedulers import LayerWiseCosineLR

__all__ = [
    'AutocastOptimWrapper',
    'BackboneLayerDecayConstructor',
    'BadDataHook',
    'BadNumbersError',
    'BadNumbersHook',
    'CollapseHook',
    'DeferredMessageHub',
    'FiniteOptimWrapper',
    'ForeachEMA',
    'FullyShardStrategy',
    'LayerWiseCosineLR',
    'NEPAFlexibleRunner',
    'NEPARunner',
    'PatientVisBackend',
    'ProbeHook',
    'RunStopped',
    'SafeCheckpointHook',
    'StopOnSignalHook',
]

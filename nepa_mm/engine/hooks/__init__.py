"""Hooks."""

from .bad_data_hook import BadDataHook
from .bad_numbers_hook import BadNumbersError, BadNumbersHook
from .checkpoint_hook import SafeCheckpointHook
from .collapse_hook import CollapseHook
from .probe_hook import ProbeHook
from .resume_hooks import AddressedStepHook, FinishValidationHook
from .stop_on_signal_hook import RunStopped, StopOnSignalHook

__all__ = [
    'AddressedStepHook',
    'BadDataHook',
    'BadNumbersError',
    'BadNumbersHook',
    'CollapseHook',
    'FinishValidationHook',
    'ProbeHook',
    'RunStopped',
    'SafeCheckpointHook',
    'StopOnSignalHook',
]

"""Checkpoints: safe reading, one checked loader, and the release's key names."""

from .init_cfg import init_weights_checked
from .loader import LoadReport, load_state_dict, load_weights
from .reader import CheckpointError, read_checkpoint
from .release_keys import from_release, to_release

__all__ = [
    'CheckpointError',
    'LoadReport',
    'from_release',
    'init_weights_checked',
    'load_state_dict',
    'load_weights',
    'read_checkpoint',
    'to_release',
]

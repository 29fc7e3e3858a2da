"""Checkpoints: safe reading, one checked loader, and the release's format."""

from .hosts import guard_hosts
from .init_cfg import init_cfg_entries, init_weights_checked
from .load_report import LoadReport
from .loader import load_state_dict, load_weights, read_weights, to_own_names
from .reader import read_checkpoint
from .release_keys import from_release, to_release
from .sources import CheckpointError, fetch

__all__ = [
    'CheckpointError',
    'LoadReport',
    'fetch',
    'from_release',
    'guard_hosts',
    'init_cfg_entries',
    'init_weights_checked',
    'load_state_dict',
    'load_weights',
    'read_checkpoint',
    'read_weights',
    'to_own_names',
    'to_release',
]

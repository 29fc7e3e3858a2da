"""``init_cfg=dict(type='Pretrained', ...)`` through the checked loader."""

from collections.abc import Callable
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule

from .loader import load_weights
from .sources import CheckpointError

PRETRAINED_KEYS = ('checkpoint', 'prefix', 'weights', 'strict', 'map_location', 'resample_patch_embed')


def init_weights_checked(module: BaseModule, init_weights: Callable[[], None]) -> None:
    """Initialise a module as mmengine does, but load what its ``init_cfg`` names through :func:`load_weights`.

    mmengine's own ``PretrainedInit`` only logs a warning about keys that did not match, so a wrong file would train
    from scratch unnoticed.

    Args:
        module (BaseModule): The module.
        init_weights (Callable): mmengine's ``init_weights`` of it.

    Raises:
        CheckpointError: ``init_cfg`` is no config of an initialisation, or the checkpoint cannot be read or does not
        fit.
    """
    configured = module.init_cfg
    entries = init_cfg_entries(configured)
    for entry in entries:
        if not isinstance(entry, dict) or 'type' not in entry:
            raise CheckpointError(
                f"init_cfg={entry!r} is no dict with a type, such as dict(type='Pretrained', checkpoint=...)."
            )
    pretrained = [entry for entry in entries if entry['type'] == 'Pretrained']
    for entry in pretrained:
        unknown = sorted(set(entry) - {'type', *PRETRAINED_KEYS})
        if unknown or 'checkpoint' not in entry:
            raise CheckpointError(
                f'init_cfg={dict(entry)!r}: a Pretrained entry needs checkpoint= and takes {list(PRETRAINED_KEYS)}'
                + (f', not {unknown}.' if unknown else '.')
            )
    module.init_cfg = [entry for entry in entries if entry['type'] != 'Pretrained'] or None
    try:
        init_weights()
    finally:
        module.init_cfg = configured
    for entry in pretrained:
        report = load_weights(module, **{key: value for key, value in entry.items() if key != 'type'})
        print_log(str(report), logger='current')


def init_cfg_entries(init_cfg: Any) -> list:
    """What an ``init_cfg`` holds, as a list: mmengine takes a dict, a list of them, or None."""
    return list(init_cfg) if isinstance(init_cfg, list) else [init_cfg] if init_cfg else []

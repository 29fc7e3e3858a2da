"""The hosts' own loading functions, through this package's reader and loader.

``mmpretrain.get_model``, ``mmseg.apis.init_model``, ``MMSegInferencer``, mmengine's ``load_checkpoint``, its plain
``Runner`` and its ``PretrainedInit`` all end in two places of mmengine:

- ``CheckpointLoader``, which picks a reader by the scheme of the path. Its reader of local files tries to load safely
  and, where that fails, runs whatever the file holds; its reader of URLs does not even try.
- ``load_state_dict``, which only warns of what does not match, a backbone without a single weight included.

And two of them run the text of the config that a checkpoint holds: the plain ``Runner``, when it resumes from a file of
mmengine's predecessor, and inferencers that are given weights and no config.
"""

import logging
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from .loader import load_state_dict
from .reader import read_file

SCHEMES = ('', 'http://', 'https://', 'hf://')  # '' is what no other scheme matches: local paths


# mmengine's log calls a reader by what follows the first ten letters of its name.
def load_from_nepa_mm(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint for mmengine's ``CheckpointLoader``; nothing in it is executed.

    Args:
        filename (str): As in :func:`nepa_mm.checkpoints.read_checkpoint`.
        map_location: As in ``torch.load``.

    Returns:
        Any: What the file holds, as it is, but for the text of a config, which mmengine would execute.

    Raises:
        CheckpointError: As in :func:`nepa_mm.checkpoints.read_checkpoint`, but for what the file holds.
    """
    content = read_file(filename, map_location)[0]
    if isinstance(content, dict):
        _drop_config_text(content)
    return content


def _drop_config_text(checkpoint: dict) -> None:
    hub = checkpoint.get('message_hub')
    for record, names in (
        (checkpoint.get('meta'), ('cfg', 'config')),
        (hub.get('runtime_info') if isinstance(hub, dict) else None, ('cfg',)),
    ):
        for name in names:
            if isinstance(record, dict):
                record.pop(name, None)


def guard_hosts(backbone: type[nn.Module]) -> None:
    """Close the two gaps, for this process.

    Every local file, URL and ``hf://`` repository that mmengine loads is read by :func:`load_from_nepa_mm` (mmengine's
    registration of schemes is meant for such), for whichever model. Loads into a model that holds the given backbone,
    and into no other, go to :func:`nepa_mm.checkpoints.load_state_dict`, which refuses what does not fit the backbone
    and reports what a head lacks.

    Args:
        backbone (type[nn.Module]): The class of the backbone.
    """
    CheckpointLoader.register_scheme(list(SCHEMES), load_from_nepa_mm, force=True)
    mmengines = mmengine_checkpoint.load_state_dict

    def load_into(module: nn.Module, state_dict: dict, strict: bool = False, logger: Any = None) -> None:
        inner: Any = module
        while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
            inner = inner.module
        if not any(isinstance(part, backbone) for part in inner.modules()):
            mmengines(module, state_dict, strict, logger)
            return
        report = load_state_dict(inner, state_dict, strict=strict)
        # Like mmengine's own: not a word where everything matches.
        if report.missing or report.reshaped or report.unexpected or report.filled:
            print_log(str(report), logger=logger, level=logging.WARNING)

    mmengine_checkpoint.load_state_dict = load_into

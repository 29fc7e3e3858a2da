"""nepa_mm: NEPA (Next-Embedding Predictive Autoregression) for mmpretrain and mmsegmentation.

A config needs ``custom_imports = dict(imports=['nepa_mm'])``, and every class of ours builds from it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .stack import check_stack
from .version import __version__

# First, and fast: what follows imports torch, timm and the hosts, whose errors do not say how to mend the installation.
check_stack()

from . import checkpoints, datasets, engine, models, visualization
from .apis.model_hub import join_model_hub

if TYPE_CHECKING:
    from .apis.configs import list_models
    from .apis.inference import classify, features, segment
    from .apis.model import get_model

join_model_hub()
# The hosts' own loading functions run what a file holds, and do not tell an empty backbone from a loaded one.
checkpoints.guard_hosts(models.NEPAViT)
datasets.guard_data_files()  # neither do annotations
datasets.forbid_ghostscript()

# Predicting imports more than training does: by need.
_BY_NEED = {
    'classify': '.apis.inference',
    'features': '.apis.inference',
    'get_model': '.apis.model',
    'list_models': '.apis.configs',
    'segment': '.apis.inference',
}


def __getattr__(name: str) -> Any:
    if name in _BY_NEED:
        return getattr(import_module(_BY_NEED[name], __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__all__ = [
    '__version__',
    'checkpoints',
    'classify',
    'datasets',
    'engine',
    'features',
    'get_model',
    'list_models',
    'models',
    'segment',
    'visualization',
]

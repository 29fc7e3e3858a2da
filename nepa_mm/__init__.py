"""nepa_mm: NEPA (Next-Embedding Predictive Autoregression) for mmpretrain and mmsegmentation.

A config needs ``custom_imports = dict(imports=['nepa_mm'])``, and every class of ours builds from it.
"""

from .stack import check_stack
from .version import __version__

# First, and fast: what follows imports torch, timm and the hosts, whose errors do not say how to mend the installation.
check_stack()

from . import checkpoints, datasets, engine, models

# The hosts' own loading functions run what a file holds, and do not tell an empty backbone from a loaded one.
checkpoints.guard_hosts(models.NEPAViT)

__all__ = ['__version__', 'checkpoints', 'datasets', 'engine', 'models']

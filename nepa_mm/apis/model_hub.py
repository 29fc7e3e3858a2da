"""This package's models in mmpretrain's ``list_models`` and ``get_model``."""

from __future__ import annotations

from functools import cache, wraps

from mmpretrain.apis.model import ModelHub

from .configs import configs_folder


def join_model_hub() -> None:
    """Have our model index read by mmpretrain's hub as it reads its own: when first asked, for that takes a second."""
    read_own = ModelHub._register_mmpretrain_models
    if hasattr(read_own, 'and_nepa_mm'):
        return

    @wraps(read_own)
    def read_both(cls: type[ModelHub]) -> None:
        read_own()
        register_models()

    read_both.and_nepa_mm = True  # type: ignore[attr-defined]
    ModelHub._register_mmpretrain_models = classmethod(read_both)


@cache
def register_models() -> None:
    """Register the models of our model index with mmpretrain's hub, once.

    Raises:
        ConfigNotFoundError: This installation has no configs.
        ValueError: Another package has registered a model of the same name.
    """
    root = configs_folder().parent
    ModelHub.register_model_index(root / 'model-index.yml', config_prefix=root)

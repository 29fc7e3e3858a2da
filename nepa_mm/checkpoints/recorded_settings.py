"""Settings of a backbone that its weights do not show, compared with those that the checkpoint's run wrote down."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from .recorded_config import recorded_model
from .sources import CheckpointError


def check_recorded_settings(module: nn.Module, checkpoint: Mapping[str, Any], source: str) -> list[str]:
    """Refuse weights whose backbone computed something else with the same names and shapes.

    Another number of heads splits the same matrices elsewhere, and plain QK-norm has no weights that could be missed
    or be left over: nothing but the config of the run that wrote a checkpoint tells. Bare weights and the release's
    files hold none, and pass.

    Args:
        module (nn.Module): A backbone with ``settings_without_trace``, or a model with such a ``backbone``; any other
            passes.
        checkpoint (Mapping[str, Any]): As read, with the ``meta`` of its run.
        source (str): Named in errors.

    Returns:
        list[str]: Differences that a new run may want (RoPE), for its report.

    Raises:
        CheckpointError: The checkpoint was made with another number of heads, or with QK-norm where the module has
            none, or the reverse.
    """
    module = module.module if is_model_wrapper(module) else module  # type: ignore[assignment]
    backbone: Any = getattr(module, 'backbone', module)
    if not hasattr(backbone, 'settings_without_trace'):
        return []
    try:
        recorded = (recorded_model(checkpoint, source) or {}).get('backbone')
        if not isinstance(recorded, Mapping) or type(backbone).__name__ not in str(recorded.get('type')):
            return []
        theirs = backbone.settings_without_trace(recorded)
    except (CheckpointError, ValueError):  # a config that cannot be read tells nothing
        return []
    ours = backbone.settings_without_trace(backbone.settings)
    differences = {
        key: f'{key}={theirs[key]} in the checkpoint, {ours[key]} in the model'
        for key in ours
        if theirs[key] != ours[key]
    }
    fatal = [text for key, text in differences.items() if key in ('num_heads', 'qk_norm')]
    if fatal:
        raise CheckpointError(
            f'{source} does not fit the backbone; it was made with another one: {"; ".join(fatal)}. Names and shapes '
            'of the weights agree, but the model would compute something else from them. Build the backbone that the '
            "run's config describes."
        )
    return list(differences.values())

"""The model that a run's checkpoint says it holds, read without executing the text that says so."""

import ast
from collections.abc import Mapping
from typing import Any

from .sources import CheckpointError


def recorded_model(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """The ``model`` of the config that mmengine wrote into a checkpoint.

    mmengine's own way to it, ``Config.fromstring``, executes the text; this reads literals and ``dict(...)`` only,
    which is what mmengine writes.

    Args:
        checkpoint (Mapping[str, Any]): A checkpoint.
        source (str): Named in errors.

    Returns:
        dict[str, Any] | None: The config of the model; None where none was written.

    Raises:
        CheckpointError: The text is something else.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    if not isinstance(text, str):
        return None
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and [getattr(t, 'id', None) for t in statement.targets] == ['model']:
                model = _value(statement.value)
                return model if isinstance(model, dict) else None
    except (SyntaxError, ValueError) as error:
        raise CheckpointError(
            f'{source}: the config that its run wrote into it cannot be read ({error}); name the config file instead.'
        ) from error
    return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'dict' and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f'line {node.lineno} unpacks a dict')
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError(f'line {node.lineno} unpacks a dict')
        return {ast.literal_eval(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)

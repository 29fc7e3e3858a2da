"""``compile`` of a config: torch.compile on what a training step computes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn


def compile_loss(model: nn.Module, settings: dict[str, Any] | bool | None) -> None:
    """Compile the loss of a model, in place: the forward pass of training, from which the backward pass is made.

    mmengine's ``Runner`` compiles ``train_step`` instead, together with the backward pass, clipping and the optimizer,
    which a compiler takes in pieces, and the evaluation with its Python objects, whose results it cannot take. The loss
    of NEPA is one graph, and it is what ``tools/analysis/benchmark.py step --compile`` measures.

    Weights, their names and checkpoints stay as they are.

    Args:
        model (nn.Module): The model, not its wrapper, with a method ``loss``.
        settings (dict or bool, optional): Arguments of ``torch.compile``; True for its defaults, False or None not to
            compile.

    Raises:
        TypeError: ``settings`` is neither of these.
        ValueError: ``settings`` names a target.
    """
    if settings is None or settings is False:
        return
    if settings is not True and not isinstance(settings, dict):
        raise TypeError(f'compile={settings!r}: expected True, False or a dict of arguments of torch.compile')
    arguments = {} if settings is True else dict(settings)
    if 'target' in arguments:
        raise ValueError(
            f'compile.target={arguments["target"]!r} is not taken: what is compiled is the loss of the model; '
            'remove it from the config'
        )
    with_loss: Any = model
    with_loss.loss = torch.compile(with_loss.loss, **arguments)
    print_log('The loss is compiled by torch.compile at the first iterations, which take minutes.', logger='current')

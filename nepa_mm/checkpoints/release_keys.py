"""Key names of the release (the authors' Hugging Face checkpoints) and ours, both ways.

Pure renaming and joining of tensors: it works on weights and on gradients, on whole state dicts and on parts of them.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# (release, ours); `{i}` stands for the number of a layer. Ours are without a prefix, as in `NEPAViT.state_dict()`; what
# is not the backbone's is the head's.
_PAIRS = (
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.patch_embeddings.projection.weight', 'patch_embed.proj.weight'),
    ('embeddings.patch_embeddings.projection.bias', 'patch_embed.proj.bias'),
    ('encoder.layer.{i}.layernorm_before.', 'layers.{i}.norm1.'),
    ('encoder.layer.{i}.attention.attention.query.', 'layers.{i}.attn.q_proj.'),
    ('encoder.layer.{i}.attention.attention.key.', 'layers.{i}.attn.k_proj.'),
    ('encoder.layer.{i}.attention.attention.value.', 'layers.{i}.attn.v_proj.'),
    # A release whose query, key and value are stored as one tensor, in this order, as ours are.
    ('encoder.layer.{i}.attention.attention.qkv.', 'layers.{i}.attn.qkv.'),
    ('encoder.layer.{i}.attention.attention.q_norm.', 'layers.{i}.attn.q_norm.'),
    ('encoder.layer.{i}.attention.attention.k_norm.', 'layers.{i}.attn.k_norm.'),
    ('encoder.layer.{i}.attention.output.dense.', 'layers.{i}.attn.proj.'),
    ('encoder.layer.{i}.layer_scale.lambda1', 'layers.{i}.gamma_1'),
    ('encoder.layer.{i}.layernorm_after.', 'layers.{i}.norm2.'),
    ('encoder.layer.{i}.intermediate.gate_proj.', 'layers.{i}.mlp.fc1_g.'),
    # The MLP's first layer has two names with us: `fc1` (GELU) and, next to a gate, `fc1_x`.
    ('encoder.layer.{i}.intermediate.up_proj.', 'layers.{i}.mlp.fc1.'),
    ('encoder.layer.{i}.intermediate.up_proj.', 'layers.{i}.mlp.fc1_x.'),
    ('encoder.layer.{i}.output.dense.', 'layers.{i}.mlp.fc2.'),
    ('encoder.layer.{i}.output.layer_scale.lambda1', 'layers.{i}.gamma_2'),
    ('layernorm.', 'norm.'),
    ('fc_norm.', 'head.fc_norm.'),
    ('classifier.', 'head.fc.'),
)
_RELEASE_PREFIX = 'vit_nepa.'
_HEADS = ('fc_norm.', 'classifier.')
_QKV = ('q_proj', 'k_proj', 'v_proj')


def is_release(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether any key is one of the release's names (its ``vit_nepa.`` prefix)."""
    return any(key.startswith(_RELEASE_PREFIX) for key in state_dict)


def from_release(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the release's keys to ours and join query, key and value.

    Filling in QK-norm weights that a checkpoint without them lacks is the loader's job.

    Args:
        state_dict (Mapping[str, Tensor]): Tensors under the release's names, any subset. Query, key and value of a
            layer are joined where all three are there (or are one tensor already, ``qkv``); otherwise they keep names
            of their own (``layers.N.attn.q_proj.*``). ``up_proj`` is a gated MLP's if a ``gate_proj`` is anywhere in
            the dict.

    Returns:
        dict[str, Tensor]: Backbone keys as in ``NEPAViT.state_dict()``, a classifier's as ``head.*``.

    Raises:
        KeyError: A key is none of the release's.
    """
    gated = any('.intermediate.gate_proj.' in key for key in state_dict)
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state_dict.items():
        name = _rename(key.removeprefix(_RELEASE_PREFIX), source=0, target=1)
        if name is None:
            unknown.append(key)
        else:
            renamed[name.replace('.mlp.fc1.', '.mlp.fc1_x.') if gated else name] = tensor
    _refuse(unknown, 'the release (vit_nepa.embeddings.*, vit_nepa.encoder.layer.N.*, ..., classifier.*)')

    joined: dict[str, Tensor] = {}
    for name, tensor in renamed.items():
        parts = [re.sub(r'attn\.[qkv]_proj\.', f'attn.{p}.', name) for p in _QKV]
        if len(set(parts)) == 3 and all(p in renamed for p in parts):
            joined[re.sub(r'attn\.[qkv]_proj\.', 'attn.qkv.', name)] = torch.cat([renamed[p] for p in parts])
        else:
            joined[name] = tensor
    return joined


def to_release(state_dict: Mapping[str, Tensor], fused_qkv: bool = False) -> dict[str, Tensor]:
    """The inverse of :func:`from_release`: split query, key and value, and use the release's names.

    Args:
        state_dict (Mapping[str, Tensor]): Tensors under our names, any subset; backbone keys with or without
            ``backbone.``.
        fused_qkv (bool): Leave query, key and value one tensor, ``qkv``. Defaults to False: as the published weights.

    Returns:
        dict[str, Tensor]: Tensors under the release's names.

    Raises:
        KeyError: A key is none of NEPAViT's or its classifier's.
    """
    split: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        name = key.removeprefix('backbone.')
        if '.attn.qkv.' in name and not fused_qkv:
            for part, piece in zip(_QKV, tensor.chunk(3), strict=True):
                split[name.replace('.attn.qkv.', f'.attn.{part}.')] = piece.clone()
        else:
            split[name] = tensor

    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in split.items():
        release_name = _rename(name, source=1, target=0)
        if release_name is None:
            unknown.append(name)
        elif release_name.startswith(_HEADS):
            renamed[release_name] = tensor
        else:
            renamed[_RELEASE_PREFIX + release_name] = tensor
    # `mask_token`, of the masking ablation, has no name in the release.
    _refuse(unknown, 'NEPAViT (cls_token, patch_embed.*, layers.N.*, norm.*) or its classifier (head.*)')
    return renamed


def _rename(name: str, source: int, target: int) -> str | None:
    layer = re.search(r'(?<=layer\.)\d+(?=\.)' if source == 0 else r'(?<=layers\.)\d+(?=\.)', name)
    number = layer.group() if layer else ''
    for pair in _PAIRS:
        old, new = (pair[side].format(i=number) for side in (source, target))
        if name == old or (old.endswith('.') and name.startswith(old)):
            return new + name[len(old) :]
    return None


def _refuse(unknown: list[str], expected: str) -> None:
    if unknown:
        shown = ', '.join(unknown[:5]) + (f' and {len(unknown) - 5} more' if len(unknown) > 5 else '')
        raise KeyError(f'Unknown keys: {shown}. Expected those of {expected}.')

"""Access to the release's reference numbers in tests/data/golden."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from nepa_mm.models import NEPAViT

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / 'data' / 'golden'
CASES = json.loads((GOLDEN / 'cases.json').read_text())
PRETRAIN_CASES = [name for name in CASES if name.startswith('pretrain')]


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f'{name}.safetensors')


def part(given: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    """Entries whose key starts with ``start``, without it."""
    return {k[len(start) :]: v for k, v in given.items() if k.startswith(start)}


def backbone_config(config: dict, causal: bool, **kwargs) -> dict:
    """Our config of a backbone that the release's ``config`` describes."""
    return dict(
        type='NEPAViT',
        arch=dict(
            embed_dims=config['hidden_size'],
            num_layers=config['num_hidden_layers'],
            num_heads=config['num_attention_heads'],
            feedforward_channels=config['intermediate_size'],
        ),
        patch_size=config['patch_size'],
        causal=causal,
        qk_norm='affine' if config.get('qk_norm_affine') else 'plain',
        mlp='swiglu' if config.get('use_gated_mlp') else 'gelu',
        layer_scale_init=config['layerscale_value'],
        rope=dict(base=config['rope_theta'], rescale=config['pos_embed_rescale']),
        **kwargs,
    )


def build_backbone(config: dict, causal: bool, **kwargs) -> NEPAViT:
    arguments = backbone_config(config, causal, **kwargs)
    arguments.pop('type')
    return NEPAViT(**arguments)

"""timm's block and RoPE in the form that reproduces the release's layer."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from .nepa_layer import NEPALayer
from .rope import NEPARope

QK_NORMS = ('none', 'plain', 'affine')
MLPS = ('gelu', 'swiglu')
ROPE_DEFAULTS: dict[str, float | None] = dict(base=100.0, rescale=2.0, shift=None, jitter=None)
# The release normalises with eps 1e-12 everywhere (its config.json, `layer_norm_eps`).
NORM_EPS = 1e-12


def build_layer(
    embed_dims: int,
    num_heads: int,
    feedforward_channels: int,
    qk_norm: str,
    mlp: str,
    layer_scale_init: float | None,
    qkv_bias: bool,
    drop_rate: float,
    attn_drop_rate: float,
    drop_path_rate: float,
) -> NEPALayer:
    """Build one layer: timm's EVA block, pre-norm, with QK-norm without bias.

    Args:
        embed_dims (int): Width.
        num_heads (int): Heads.
        feedforward_channels (int): Hidden width of the MLP.
        qk_norm (str): 'none', 'plain' or 'affine'.
        mlp (str): 'gelu' or 'swiglu'.
        layer_scale_init (float, optional): Initial LayerScale; None for none.
        qkv_bias (bool): Bias of q, k and v.
        drop_rate (float): Dropout after the projections.
        attn_drop_rate (float): Dropout of attention weights.
        drop_path_rate (float): Stochastic depth.

    Returns:
        NEPALayer: Called as ``layer(x, rope=..., is_causal=...)`` on (B, 1 + T, embed_dims).
    """

    def norm_layer(dim: int, **kwargs: Any) -> nn.LayerNorm:
        return nn.LayerNorm(dim, eps=NORM_EPS, **kwargs)

    layer = NEPALayer(
        embed_dims,
        num_heads=num_heads,
        qkv_bias=qkv_bias,
        # timm takes a ratio and cuts it to an integer; half a channel more survives the rounding of the division.
        mlp_ratio=(feedforward_channels + 0.5) / embed_dims,
        swiglu_mlp=mlp == 'swiglu',
        # Gate and value as two layers (timm: SwiGLU with an alignment): a plain renaming of the release's weights, and
        # no strided halves to copy in the forward pass.
        swiglu_align_to=int(mlp == 'swiglu'),
        attn_type='rope',
        rotate_half=True,
        num_prefix_tokens=1,
        proj_drop=drop_rate,
        attn_drop=attn_drop_rate,
        drop_path=drop_path_rate,
        init_values=layer_scale_init,
        norm_layer=norm_layer,
    )
    if qk_norm != 'none':
        # timm's own qk_norm would bring a bias along.
        head_dim = embed_dims // num_heads
        for name in ('q_norm', 'k_norm'):
            norm = nn.LayerNorm(head_dim, eps=NORM_EPS, elementwise_affine=qk_norm == 'affine', bias=False)
            setattr(layer.attn, name, norm)
    return layer


def build_rope(rope: Mapping[str, float | None] | bool | None, head_dim: int) -> NEPARope | None:
    """Build the position embedding, or none.

    Args:
        rope (Mapping | bool, optional): As in ``NEPAViT``.
        head_dim (int): Width of a head.

    Returns:
        NEPARope | None: Its ``get_embed([H_grid, W_grid])`` gives what the layers take, for any grid.

    Raises:
        ValueError: An option is unknown or of no use, or ``head_dim`` is not divisible by 4.
    """
    if rope is None or rope is False:
        return None
    if rope is not True and not isinstance(rope, Mapping):
        raise ValueError(f'NEPAViT: rope={rope!r} is neither a dict of {sorted(ROPE_DEFAULTS)} nor True, False, None.')
    given = {} if rope is True else dict(rope)
    unknown = sorted(set(given) - set(ROPE_DEFAULTS))
    if unknown:
        raise ValueError(f'NEPAViT: rope has no option {unknown}; it takes {sorted(ROPE_DEFAULTS)}.')
    if head_dim % 4:
        raise ValueError(
            f'NEPAViT: RoPE in two dimensions needs a head dimension divisible by 4, got {head_dim}. '
            'Change embed_dims or num_heads, or switch it off with rope=None.'
        )
    options = {**ROPE_DEFAULTS, **given}
    base = options['base']
    if not isinstance(base, (int, float)) or base <= 0:
        raise ValueError(f'NEPAViT: rope base={base!r} is no positive number.')
    return NEPARope(
        head_dim,
        temperature=base,
        rescale_coords=options['rescale'],
        shift_coords=options['shift'],
        jitter_coords=options['jitter'],
        rotate_half=True,
    )

"""``config.json`` of the release and the ``NEPAViT`` that it describes, both ways."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...checkpoints import CheckpointError
from ...checkpoints.patch_embed import WEIGHT
from .archs import ARCHS, check_arch
from .nepa_layers import NORM_EPS, ROPE_DEFAULTS

# What stands beside the architecture and changes no weight and no output: bookkeeping of the library that wrote it,
# and the scale of the random start.
_BOOKKEEPING = frozenset(
    (
        '_name_or_path',
        'architectures',
        'auto_map',
        'dtype',
        'id2label',
        'image_size',
        'initializer_range',
        'label2id',
        'model_type',
        'num_labels',
        'problem_type',
        'torch_dtype',
        'transformers_version',
    )
)
_NEEDED = (
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'intermediate_size',
    'patch_size',
    'qk_norm',
    'layerscale_value',
    'rope_theta',
    'pos_embed_rescale',
    'layer_norm_eps',
)
_OPTIONAL = ('qk_norm_affine', 'qk_norm_bias', 'use_gated_mlp', 'hidden_act', 'is_causal', 'add_pooling_layer')
_SHAPES = ('qkv_bias', 'num_channels')  # read off the weights
_CLASSIFIER = ('add_pooling_layer', 'num_labels', 'id2label', 'label2id', 'is_causal')


def backbone_config_of(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The ``NEPAViT`` that a release checkpoint was made with.

    Args:
        config (Mapping[str, Any]): Content of ``config.json``.
        weights (Mapping[str, Tensor]): The weights under our names, without a prefix; what they show, they decide.

    Returns:
        dict[str, Any]: ``dict(type='NEPAViT', ...)``. With a classifier's weights it is that of the classifier
        (``causal``, ``out_type``); without, ``causal`` is left to what the backbone is used for.

    Raises:
        CheckpointError: A key is absent, ``config`` and ``weights`` disagree, or NEPAViT does not offer what they
            describe.
    """
    absent = [key for key in _NEEDED if key not in config]
    if absent:
        raise CheckpointError(f'config.json has no {", ".join(absent)}; take the one that came with the weights.')
    _check_offered(config)
    arch: Any = dict(
        embed_dims=config['hidden_size'],
        num_layers=config['num_hidden_layers'],
        num_heads=config['num_attention_heads'],
        feedforward_channels=config['intermediate_size'],
    )
    if WEIGHT not in weights:
        raise CheckpointError('The weights have no patch embedding (vit_nepa.embeddings.patch_embeddings.projection).')
    patch = weights[WEIGHT]
    affine = any(name.endswith('attn.q_norm.weight') for name in weights)
    backbone: dict[str, Any] = dict(
        type='NEPAViT',
        arch=next((name for name, settings in ARCHS.items() if settings == arch), arch),
        patch_size=patch.shape[-1],
        qk_norm='none' if not config['qk_norm'] else 'affine' if affine else 'plain',
        mlp='swiglu' if config.get('use_gated_mlp') else 'gelu',
        layer_scale_init=config['layerscale_value'] if any(n.endswith('gamma_1') for n in weights) else None,
        rope=dict(base=config['rope_theta'], rescale=config['pos_embed_rescale']),
    )
    if patch.shape[1] != 3:
        backbone['in_channels'] = patch.shape[1]
    if not any(name.endswith('attn.qkv.bias') for name in weights):
        backbone['qkv_bias'] = False
    if has_classifier(weights):
        if not config.get('add_pooling_layer', True) or 'head.fc_norm.weight' not in weights:
            raise CheckpointError(
                'The classifier has no fc_norm (add_pooling_layer is off): what it pools is not known here. Convert '
                'the backbone alone (--backbone-only).'
            )
        backbone |= dict(causal=bool(config.get('is_causal', True)), out_type='avg_featmap')
    return backbone


def has_classifier(weights: Mapping[str, Tensor]) -> bool:
    """Whether a classifier's weights are among those under our names."""
    return any(name.startswith('head.') for name in weights)


def without_classifier(config: Mapping[str, Any]) -> dict[str, Any]:
    """A ``config.json`` for the backbone alone."""
    return {key: value for key, value in config.items() if key not in _CLASSIFIER}


def unread_keys(config: Mapping[str, Any]) -> list[str]:
    """Keys of a ``config.json`` that nothing here looks at: settings of training, or what a later release added."""
    return sorted(set(config) - {*_BOOKKEEPING, *_NEEDED, *_OPTIONAL, *_SHAPES})


def class_names(config: Mapping[str, Any]) -> list[str] | None:
    """Class names of a classifier in the order of its outputs, where ``config.json`` has real ones."""
    names = config.get('id2label') or {}
    ordered = [str(names[key]) for key in sorted(names, key=int)]
    return None if not ordered or all(name.startswith('LABEL_') for name in ordered) else ordered


def _check_offered(config: Mapping[str, Any]) -> None:
    gated, act = bool(config.get('use_gated_mlp')), config.get('hidden_act', 'gelu')
    for wrong, what in (
        (gated and act != 'silu', f'a gated MLP with hidden_act={act!r} (GEGLU or another); NEPAViT gates with silu'),
        (not gated and act != 'gelu', f'an MLP with hidden_act={act!r}; NEPAViT has gelu, or a gate with silu'),
        (config.get('qk_norm_bias'), 'QK-norm with a bias; that of NEPAViT has none'),
        (config['layer_norm_eps'] != NORM_EPS, f'layer_norm_eps={config["layer_norm_eps"]}; NEPAViT has {NORM_EPS}'),
    ):
        if wrong:
            raise CheckpointError(f'config.json describes {what}, so these weights cannot be used here.')


def release_config_of(
    backbone: Mapping[str, Any], image_size: int, causal: bool, num_classes: int | None = None
) -> dict[str, Any]:
    """``config.json`` for a ``NEPAViT``, with the keys of the release.

    Args:
        backbone (Mapping[str, Any]): Config of the backbone.
        image_size (int): Side in pixels. NEPAViT takes any; the release's config names one.
        causal (bool): How it attends; written for a classifier, as the release does.
        num_classes (int, optional): Outputs of the classifier. Defaults to None: there is none.

    Returns:
        dict[str, Any]: The content. ``model_type`` and ``architectures`` are not among the keys: they name classes of
        the release's code.

    Raises:
        CheckpointError: The release has no key for what the backbone is.
    """
    kind = backbone.get('type')
    if str(kind).split('.')[-1] != 'NEPAViT':
        raise CheckpointError(f'The backbone is {kind!r}; only NEPAViT has a form in the release.')
    rope = backbone.get('rope', True)
    if not rope:
        raise CheckpointError('The backbone has no RoPE (rope=None); the release has no form for that.')
    options = ROPE_DEFAULTS | (dict(rope) if isinstance(rope, Mapping) else {})
    arch = check_arch(backbone.get('arch', 'base'))
    qk_norm, layer_scale = backbone.get('qk_norm', 'plain'), backbone.get('layer_scale_init', 1e-5)
    config: dict[str, Any] = dict(
        hidden_size=arch['embed_dims'],
        num_hidden_layers=arch['num_layers'],
        num_attention_heads=arch['num_heads'],
        intermediate_size=arch['feedforward_channels'],
        image_size=image_size,
        patch_size=backbone.get('patch_size', 14),
        qk_norm=qk_norm != 'none',
        qk_norm_affine=qk_norm == 'affine',
        qk_norm_bias=False,
        layerscale_value=1.0 if layer_scale is None else layer_scale,  # without one the weights get ones
        rope_theta=options['base'],
        pos_embed_rescale=options['rescale'],
        layer_norm_eps=NORM_EPS,
        initializer_range=0.02,
    )
    if backbone.get('mlp', 'gelu') == 'swiglu':
        config |= dict(use_gated_mlp=True, hidden_act='silu')
    if backbone.get('in_channels', 3) != 3:
        config['num_channels'] = backbone['in_channels']
    if not backbone.get('qkv_bias', True):
        config['qkv_bias'] = False
    if num_classes is not None:
        config |= dict(add_pooling_layer=True, is_causal=causal, num_labels=num_classes)
    return config

"""NEPAViT: the one vision transformer that pretrains, classifies and segments."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...checkpoints import init_weights_checked
from ..utils import FeatureMaps, is_count, is_rate
from .archs import check_arch
from .nepa_layers import MLPS, NORM_EPS, QK_NORMS, ROPE_DEFAULTS, build_layer, build_rope
from .position_embedding import INIT_STD, PositionEmbedding

OUT_TYPES = ('raw', 'featmap', 'avg_featmap', 'last_token')


@MODELS.register_module()
class NEPAViT(BaseModule):
    """Vision transformer of NEPA: pre-norm, QK-norm, LayerScale, 2-D RoPE, causal or bidirectional.

    One class serves pretraining (``causal=True`` and :meth:`predict_next`), classification (``out_type`` 'avg_featmap'
    or 'last_token') and segmentation (``out_type='featmap'`` with several ``out_indices``) with the same parameter
    names, so a pretraining checkpoint's ``backbone.*`` loads into the other two with nothing renamed. The blocks, the
    RoPE and the patch embedding are timm's.

    Source: NEPA (arXiv 2512.16922), section 3, and the release's ``config.json``; RoPE as in DINOv3.

    Args:
        arch (str | Mapping): 'tiny' (192 wide, 12 layers, 3 heads), 'small' (384/12/6), 'base' (768/12/12), 'large'
            (1024/24/16), 'huge' (1280/32/16), or a dict with ``embed_dims``, ``num_layers``, ``num_heads`` and
            ``feedforward_channels``. Defaults to 'base'.
        patch_size (int): Side of a patch in pixels. Defaults to 14.
        in_channels (int): Channels of the input image. Defaults to 3.
        causal (bool): Whether a token attends only to itself and what stands before it in raster order. Pretraining
            is causal; segmentation and the paper's best classification are not. Defaults to False.
        qk_norm (str): LayerNorm over the head dimension of q and k: 'none', 'plain' (no weight, as in the released
            base pretraining weights) or 'affine' (a weight, no bias). Defaults to 'plain'.
        mlp (str): 'gelu' (the release) or 'swiglu' (the paper's main model). Defaults to 'gelu'.
        layer_scale_init (float, optional): Initial LayerScale of both residual branches; None for no LayerScale.
            Defaults to 1e-5.
        rope (Mapping | bool, optional): Keys ``base``, and the random change of all coordinates per forward in train
            mode: ``rescale`` (log-uniform in [1/rescale, rescale]), ``shift`` (uniform in [-shift, shift], in units of
            half an image), ``jitter`` (log-uniform per axis); None switches one off. What is absent keeps its default;
            None or False means no RoPE. Defaults to ``dict(base=100., rescale=2., shift=None, jitter=None)``.
        pos_embed (Sequence[int], optional): Rows and columns of a learned position embedding, added to the patches as
            they enter the layers (targets have none); other grids resample it. The paper's text mentions one, the
            release has none; here it serves the ablation without RoPE. Defaults to None: none.
        drop_path_rate (float): Stochastic depth of the last layer, rising linearly from 0. Defaults to 0.
        drop_rate (float): Dropout after the embedding and after the projections of attention and MLP. Defaults to 0.
        attn_drop_rate (float): Dropout of attention weights. On a CPU, whose fused attention has none, training with it
            builds T x T matrices. Defaults to 0.
        qkv_bias (bool): Bias of the q, k and v projections. Defaults to True.
        mask_ratio (float): Share of the input patches that :meth:`predict_next` replaces by a learned ``mask_token`` in
            train mode (the paper's masking ablation, table 1b); targets stay unmasked. Defaults to 0: no such token.
        out_indices (int | Sequence[int]): Layers to return the output of, in this order; negative ones count from the
            end. Layers above the highest one do not run and get no gradient, which DDP takes only with
            ``find_unused_parameters=True``. Defaults to -1.
        out_type (str): 'raw' (B, 1 + T, D) tokens with BOS first; 'featmap' (B, D, H_grid, W_grid), in a
            :class:`FeatureMaps`; 'avg_featmap' (B, D), the mean of the patch tokens; 'last_token' (B, D), the last
            patch in raster order, the only one that has seen the whole image under causal attention. Defaults to
            'featmap'.
        final_norm (bool): LayerNorm on the output of the last layer, and on that alone. Defaults to True.
        frozen_stages (int): -1 freezes nothing, 0 the patch embedding, the learned positions and the BOS token, k those
            and the first k layers, ``num_layers`` the final norm too. Frozen parts stay in eval mode: no dropout or
            drop path in them. The RoPE rescale, one for all layers, stops only where all are frozen. Defaults to -1.
        freeze_patch_embed (bool): Freeze the patch embedding alone, as both published fine-tuning recipes do.
            Defaults to False.
        with_cp (bool): Activation checkpointing of every layer: less memory, about a third more time. Defaults to
            False.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint=...)`` loads through
            :func:`nepa_mm.checkpoints.load_weights`, which reports what it did and refuses what does not fit.

    Raises:
        ValueError: An argument is outside what is listed above; the message says what would be right.
    """

    def __init__(
        self,
        arch: str | Mapping[str, int] = 'base',
        patch_size: int = 14,
        in_channels: int = 3,
        causal: bool = False,
        qk_norm: str = 'plain',
        mlp: str = 'gelu',
        layer_scale_init: float | None = 1e-5,
        rope: Mapping[str, float | None] | bool | None = True,
        pos_embed: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        qkv_bias: bool = True,
        mask_ratio: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'featmap',
        final_norm: bool = True,
        frozen_stages: int = -1,
        freeze_patch_embed: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.settings = dict(arch=arch, qk_norm=qk_norm, rope=rope)
        self.arch_settings = check_arch(arch)
        self.embed_dims = self.arch_settings['embed_dims']
        self.num_layers = self.arch_settings['num_layers']
        num_heads = self.arch_settings['num_heads']
        _check_choice('qk_norm', qk_norm, QK_NORMS)
        _check_choice('mlp', mlp, MLPS)
        _check_choice('out_type', out_type, OUT_TYPES)
        for name, rate in (
            ('drop_path_rate', drop_path_rate),
            ('drop_rate', drop_rate),
            ('attn_drop_rate', attn_drop_rate),
            ('mask_ratio', mask_ratio),
        ):
            if not is_rate(rate):
                raise ValueError(f'NEPAViT: {name}={rate!r} is no number in [0, 1).')
        for name, count in (('patch_size', patch_size), ('in_channels', in_channels)):
            if not is_count(count):
                raise ValueError(f'NEPAViT: {name}={count!r} is not a positive integer.')
        for name, switch in (
            ('causal', causal),
            ('qkv_bias', qkv_bias),
            ('final_norm', final_norm),
            ('freeze_patch_embed', freeze_patch_embed),
            ('with_cp', with_cp),
        ):
            if not isinstance(switch, bool):
                raise ValueError(f'NEPAViT: {name}={switch!r} is neither True nor False.')
        if layer_scale_init is not None and not isinstance(layer_scale_init, (int, float)):
            raise ValueError(f'NEPAViT: layer_scale_init={layer_scale_init!r} is neither a number nor None.')
        if not is_count(frozen_stages, least=-1) or frozen_stages > self.num_layers:
            raise ValueError(
                f'NEPAViT: frozen_stages={frozen_stages!r} is no integer from -1 (nothing) to {self.num_layers} (all '
                'layers).'
            )

        self.patch_size = patch_size
        self.in_channels = in_channels
        self.causal = causal
        self.mask_ratio = mask_ratio
        self.out_indices = _check_out_indices(out_indices, self.num_layers)
        self.out_type = out_type
        self.frozen_stages = frozen_stages
        self.freeze_patch_embed = freeze_patch_embed
        self.with_cp = with_cp

        self.patch_embed = PatchEmbed(
            img_size=None, patch_size=patch_size, in_chans=in_channels, embed_dim=self.embed_dims, dynamic_img_pad=True
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims)) if mask_ratio > 0 else None
        self.drop_after_embed = nn.Dropout(drop_rate)
        self.pos_embed = None if pos_embed is None else PositionEmbedding(pos_embed, self.embed_dims)
        self.rope = build_rope(rope, head_dim=self.embed_dims // num_heads)
        self.layers = nn.ModuleList(
            build_layer(
                self.embed_dims,
                num_heads,
                self.arch_settings['feedforward_channels'],
                qk_norm=qk_norm,
                mlp=mlp,
                layer_scale_init=layer_scale_init,
                qkv_bias=qkv_bias,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path_rate * i / max(1, self.num_layers - 1),
            )
            for i in range(self.num_layers)
        )
        self.norm = nn.LayerNorm(self.embed_dims, eps=NORM_EPS) if final_norm else nn.Identity()

        self._draw_weights()
        for module in self._frozen_modules():
            module.requires_grad_(False)
        if frozen_stages >= 0:
            self.cls_token.requires_grad_(False)

    # ------------------------------------------------------------------ the three uses

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of the layers in ``out_indices``, in the form of ``out_type``.

        Args:
            images (Tensor): (B, C, H, W), normalised, floating point, any size of at least one patch. What does not
                fill whole patches is padded right and bottom with zeros (mid-grey).

        Returns:
            tuple[Tensor, ...]: One tensor per entry of ``out_indices``; a :class:`FeatureMaps` for 'featmap'.

        Raises:
            TypeError: ``images`` is no floating-point tensor.
            ValueError: It has the wrong number of dimensions or channels, or is smaller than a patch.
        """
        tokens, grid = self.embed(images)  # (B, 1 + T, D)
        outs = self.encode(tokens, grid, self.out_indices)
        if self.out_type == 'raw':
            return tuple(outs)
        if self.out_type == 'avg_featmap':
            return tuple(x[:, 1:].mean(dim=1) for x in outs)
        if self.out_type == 'last_token':
            return tuple(x[:, -1] for x in outs)
        maps = [x[:, 1:].transpose(1, 2).unflatten(2, grid).contiguous() for x in outs]
        return FeatureMaps(maps, image_size=(images.shape[-2], images.shape[-1]))

    def predict_next(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What NEPA's loss compares: at each position, a prediction of the *next* position's embedding.

        Args:
            images (Tensor): (B, C, H, W), normalised. H and W must be whole patches: padding would become a target.

        Returns:
            tuple[Tensor, Tensor]: ``prediction`` and ``embeddings``, both (B, 1 + T, D), BOS first. ``prediction[:,
            t]`` is the guess for ``embeddings[:, t + 1]``. Embeddings are those of the patches as they entered (before
            dropout and masking), not detached; stopping the gradient is the loss's business.

        Raises:
            TypeError, ValueError: As :meth:`forward`; and ValueError where H or W is not a multiple of the patch size.
        """
        embeddings, grid = self.embed(images)
        height, width = images.shape[-2:]
        patch = self.patch_size
        if height % patch or width % patch:
            raise ValueError(
                f'NEPAViT.predict_next: image of {height} x {width} is not whole patches of {patch}; '
                f'its padding would become a prediction target. Crop to a multiple, for example '
                f'{height - height % patch} x {width - width % patch}.'
            )
        tokens = self._mask(embeddings) if self.mask_token is not None and self.training else embeddings
        (prediction,) = self.encode(tokens, grid, (self.num_layers - 1,))
        return prediction, embeddings

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch embeddings behind the BOS token.

        Args:
            images (Tensor): (B, C, H, W), as in :meth:`forward`.

        Returns:
            tuple[Tensor, tuple[int, int]]: Embeddings (B, 1 + T, D) and the patch grid (H_grid, W_grid).
        """
        self._check_images(images)
        patches = self.patch_embed(images)  # (B, T, D)
        bos = self.cls_token.expand(patches.shape[0], -1, -1).to(patches.dtype)
        return torch.cat([bos, patches], dim=1), self.patch_embed.dynamic_feat_size(
            (images.shape[-2], images.shape[-1])
        )

    def encode(self, tokens: Tensor, grid: tuple[int, int], out_indices: Sequence[int]) -> list[Tensor]:
        """Run the layers.

        Args:
            tokens (Tensor): (B, 1 + T, D) from :meth:`embed`.
            grid (tuple[int, int]): The patch grid.
            out_indices (Sequence[int]): Layers to return, counted from 0.

        Returns:
            list[Tensor]: Their outputs, each (B, 1 + T, D).
        """
        rope = None if self.rope is None else self.rope.get_embed(list(grid))  # (T, 2 * head_dim)
        outs: dict[int, Tensor] = {}
        x = tokens if self.pos_embed is None else self.pos_embed(tokens, grid)
        x = self.drop_after_embed(x)
        if torch.is_autocast_enabled(x.device.type):
            # The residual stream in fp32, with LayerScale (whose fp32 factor would promote it) and without.
            x = x.float()
        for i, layer in enumerate(self.layers[: max(out_indices) + 1]):
            if self.with_cp and self.training and torch.is_grad_enabled():
                x = checkpoint(layer, x, rope=rope, is_causal=self.causal, use_reentrant=False)
            else:
                x = layer(x, rope=rope, is_causal=self.causal)
            if i in out_indices:
                outs[i] = self.norm(x) if i == self.num_layers - 1 else x
        return [outs[i] for i in out_indices]

    def _mask(self, embeddings: Tensor) -> Tensor:
        """Replace a random ``mask_ratio`` of each image's patches by the mask token; BOS is never masked."""
        assert self.mask_token is not None
        batch, length, _ = embeddings.shape
        num_masked = round((length - 1) * self.mask_ratio)
        order = torch.rand(batch, length - 1, device=embeddings.device).argsort(dim=1)
        masked = torch.zeros(batch, length, 1, dtype=torch.bool, device=embeddings.device)
        masked[:, 1:, 0].scatter_(1, order[:, :num_masked], True)
        return torch.where(masked, self.mask_token.to(embeddings.dtype), embeddings)

    def _check_images(self, images: Tensor) -> None:
        if not isinstance(images, Tensor) or not images.is_floating_point():
            given = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(
                f'NEPAViT: images are {given}; expected floating point, (B, {self.in_channels}, H, W), normalised. '
                'Raw 0..255 images go through the data preprocessor (mean = std = 127.5) first.'
            )
        weight = self.patch_embed.proj.weight
        if images.dtype != weight.dtype and not torch.is_autocast_enabled(images.device.type):
            raise TypeError(
                f'NEPAViT: images are {images.dtype}, the weights {weight.dtype}; convert them (.to({weight.dtype})) '
                'or run under autocast.'
            )
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f'NEPAViT: images have shape {tuple(images.shape)}; expected (B, {self.in_channels}, H, W). '
                f'For another number of channels build the model with in_channels=.'
            )
        if min(images.shape[-2:]) < self.patch_size:
            raise ValueError(
                f'NEPAViT: an image of {images.shape[-2]} x {images.shape[-1]} is smaller than one patch of '
                f'{self.patch_size} x {self.patch_size}. Resize or pad the image, or take a smaller patch_size.'
            )

    # ------------------------------------------------------------------ weights

    def _draw_weights(self) -> None:
        """Truncated normal of std 0.02 for linear, convolution and tokens; zero biases; the rest as built."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)
        if self.mask_token is not None:
            nn.init.trunc_normal_(self.mask_token, std=INIT_STD)

    def init_weights(self) -> None:
        """Hook of mmengine: a ``Pretrained`` entry of ``init_cfg`` loads through the checked loader.

        mmengine's own ``PretrainedInit`` only logs a warning about keys that did not match, so a wrong file would train
        from scratch unnoticed.

        Raises:
            nepa_mm.checkpoints.CheckpointError: The checkpoint cannot be read or does not fit.
        """
        init_weights_checked(self, super().init_weights)

    def _frozen_modules(self) -> list[nn.Module]:
        modules: list[nn.Module] = []
        if self.freeze_patch_embed or self.frozen_stages >= 0:
            modules.append(self.patch_embed)
        if self.frozen_stages >= 0:
            modules.append(self.drop_after_embed)
            modules += [self.pos_embed] if self.pos_embed is not None else []
        modules += self.layers[: max(self.frozen_stages, 0)]
        if self.frozen_stages == self.num_layers:
            # Nothing of the backbone learns, so its features should not be drawn at random either.
            modules.append(self.norm)
            modules += [self.rope] if self.rope is not None else []
        return modules

    def train(self, mode: bool = True) -> 'NEPAViT':
        """Set the mode; frozen parts stay in eval mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    @staticmethod
    def settings_without_trace(settings: Mapping[str, Any]) -> dict[str, Any]:
        """What decides the output and shows in no weight: the loader compares it with the config of a checkpoint's run.

        Args:
            settings (Mapping[str, Any]): Arguments of a NEPAViT; what is absent has its default.

        Returns:
            dict[str, Any]: ``num_heads``, ``qk_norm`` ('none' or 'norm': plain is affine with ones) and ``rope_base``
            (None without RoPE). What acts in training mode alone is left out, and so is ``causal``, which pretraining
            and transfer set differently on purpose.

        Raises:
            ValueError: They are no arguments of a NEPAViT.
        """
        rope = settings.get('rope', True)
        options: dict[str, Any] = {**ROPE_DEFAULTS, **(rope if isinstance(rope, Mapping) else {})}
        return dict(
            num_heads=check_arch(settings.get('arch', 'base'))['num_heads'],
            qk_norm='none' if settings.get('qk_norm', 'plain') == 'none' else 'norm',
            rope_base=None if rope in (None, False) else float(options['base']),
        )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay, as in mmpretrain's backbones.

        Args:
            param_name (str): Name of the parameter, with ``prefix``.
            prefix (str): What stands before the backbone's own names, such as 'backbone.'. Defaults to ''.

        Returns:
            tuple[int, int]: The depth and the number of depths, ``num_layers + 2``: 0 for the embeddings, ``i + 1`` for
            layer ``i``, the last for the final norm and whatever does not start with ``prefix``.
        """
        num_depths = self.num_layers + 2
        if not param_name.startswith(prefix):
            return num_depths - 1, num_depths
        name = param_name[len(prefix) :]
        if name.startswith(('patch_embed.', 'cls_token', 'mask_token', 'pos_embed.')):
            return 0, num_depths
        if name.startswith('layers.'):
            return int(name.split('.')[1]) + 1, num_depths
        return num_depths - 1, num_depths


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f'NEPAViT: {name}={value!r} is unknown; choose one of {list(choices)}.')


def _check_out_indices(out_indices: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Turn negative indices into positive ones; hosts drop levels in silence where an index is out of range."""
    if isinstance(out_indices, Sequence) and not isinstance(out_indices, str):
        indices = list(out_indices)
    else:
        indices = [out_indices]
    if not indices:
        raise ValueError('NEPAViT: out_indices is empty; name at least one layer.')
    for index in indices:
        if not is_count(index, least=-num_layers) or index >= num_layers:
            raise ValueError(
                f'NEPAViT: out_indices={out_indices!r} names layer {index!r}, but there are {num_layers} layers: '
                f'0..{num_layers - 1}, or -{num_layers}..-1 from the end.'
            )
    return tuple(index % num_layers for index in indices)

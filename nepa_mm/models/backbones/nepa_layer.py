"""One layer: timm's EVA block, which on the CPU computes in fewer passes over memory.

Why not timm's own forward there: it cuts BOS off q and k and puts them together again around RoPE, and eager autograd
adds copies, scalings and casts of its own. Figures of both, from one run, in docs/benchmarks.md.
"""

import torch
import torch.nn.functional as F
from timm.layers import AttentionRope, DropPath, Mlp, SwiGLU
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .lean_ops import Linear, NormRotate, PackedLinear, ResidualLinear, rope_tables

# Not float16: LayerScale (1e-5) times a weight is no number there.
_LEAN_DTYPES = (torch.float32, torch.bfloat16, torch.float64)
_DROPS = (DropPath, nn.Dropout, nn.Identity)
# The modules of a layer as they are built, whose weights the lean functions take. One of another class (LoRA, a
# quantized or parametrized layer) or one more may compute anything.
_BUILT: dict[str, tuple[type[nn.Module], ...]] = {
    'norm1': (nn.LayerNorm,),
    'attn': (AttentionRope,),
    'attn.qkv': (nn.Linear,),
    'attn.q_norm': (nn.Identity, nn.LayerNorm),
    'attn.k_norm': (nn.Identity, nn.LayerNorm),
    'attn.attn_drop': (nn.Dropout,),
    'attn.norm': (nn.Identity,),
    'attn.proj': (nn.Linear,),
    'attn.proj_drop': _DROPS,
    'drop_path1': _DROPS,
    'norm2': (nn.LayerNorm,),
    'mlp': (Mlp, SwiGLU),
    'mlp.fc1': (nn.Linear,),
    'mlp.fc1_g': (nn.Linear,),
    'mlp.fc1_x': (nn.Linear,),
    'mlp.act': (nn.GELU, nn.SiLU),
    'mlp.drop1': _DROPS,
    'mlp.norm': (nn.Identity,),
    'mlp.fc2': (nn.Linear,),
    'mlp.drop2': _DROPS,
    'drop_path2': _DROPS,
}


class NEPALayer(EvaBlock):
    """Pre-norm layer with QK-norm, RoPE and LayerScale; arguments, parameters and results are timm's.

    On the CPU it runs the functions of :mod:`.lean_ops`. On a GPU, under ``torch.compile`` and ``torch.func``, with
    dropout or drop path at work, and where a module is not what was built or a hook hangs on it, it runs as timm's.
    """

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Run the layer.

        Args:
            x (Tensor): (B, 1 + T, D), BOS first; under autocast the residual stream in fp32.
            rope (Tensor, optional): (T, 2 * head_dim), sines and cosines of the patches. Defaults to None: no RoPE.
            attn_mask (Tensor, optional): As in ``scaled_dot_product_attention``. Defaults to None.
            is_causal (bool): Whether a token attends only to itself and what stands before. Defaults to False.

        Returns:
            Tensor: (B, 1 + T, D).
        """
        autocasts = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if autocasts else x.dtype
        if attn_mask is not None or not self._is_lean(x, dtype):
            return super().forward(x, rope=rope, attn_mask=attn_mask, is_causal=is_causal)
        with torch.autocast('cpu', enabled=False):
            return self._forward_lean(x, dtype, rope, is_causal)

    def _forward_lean(self, x: Tensor, dtype: torch.dtype, rope: Tensor | None, is_causal: bool) -> Tensor:
        attn, mlp = self.attn, self.mlp
        h = self.norm1(x).to(dtype)
        q, k, v = (
            part.unflatten(-1, (attn.num_heads, attn.head_dim))  # (B, 1 + T, H, d)
            for part in PackedLinear.apply(h, attn.qkv.weight, attn.qkv.bias)
        )
        cos, sin = (None, None) if rope is None else rope_tables(rope, dtype)
        q, k = (
            NormRotate.apply(part, getattr(norm, 'weight', None), cos, sin, getattr(norm, 'eps', None))
            for part, norm in ((q, attn.q_norm), (k, attn.k_norm))
        )
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, H, 1 + T, d)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        y = y.transpose(1, 2).flatten(2)  # (B, 1 + T, D), no copy
        x = ResidualLinear.apply(y, attn.proj.weight, attn.proj.bias, self.gamma_1, x)
        h = self.norm2(x).to(dtype)
        if isinstance(mlp, SwiGLU):
            y = mlp.act(_linear(h, mlp.fc1_g)) * _linear(h, mlp.fc1_x)  # (B, 1 + T, F)
        else:
            y = mlp.act(_linear(h, mlp.fc1))  # (B, 1 + T, F)
        return ResidualLinear.apply(y, mlp.fc2.weight, mlp.fc2.bias, self.gamma_2, x)

    def _is_lean(self, x: Tensor, dtype: torch.dtype) -> bool:
        """Whether the lean functions give what the modules would, for this input and as the layer stands."""
        if x.device.type != 'cpu' or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if dtype not in _LEAN_DTYPES or _has_any_global_hook() or torch._C._are_functorch_transforms_active():
            return False
        attn = self.attn
        if type(attn) is not AttentionRope or not attn.fused_attn:
            return False
        for name, module in self.named_modules():
            if name and (type(module) not in _BUILT.get(name, ()) or _is_watched(module)):
                return False
            # timm asks the attention, not its dropout, whether it trains.
            if isinstance(module, nn.Dropout | DropPath) and (module.training or attn.training) and _rate(module):
                return False
            if isinstance(module, nn.Linear) and module.bias is None and name != 'attn.qkv':
                return False
        for norm in (attn.q_norm, attn.k_norm):
            if isinstance(norm, nn.LayerNorm) and (norm.bias is not None or norm.normalized_shape != (attn.head_dim,)):
                return False
        return True


def _is_watched(module: nn.Module) -> bool:
    """Whether something is to happen when the module is called, other than its class's forward."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in module.__dict__
    )


def _rate(module: nn.Dropout | DropPath) -> float:
    return module.p if isinstance(module, nn.Dropout) else module.drop_prob


def _linear(x: Tensor, linear: nn.Module) -> Tensor:
    return Linear.apply(x, linear.weight, linear.bias)

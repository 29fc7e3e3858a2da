"""Differentiable pieces of a layer with few passes over memory, for the CPU without a compiler.

A matrix product of a CPU is only some ten times dearer than reading and writing what it works on, so what stands
between the products counts: eager autograd copies, casts, scales and adds in passes of their own. Each function here is
one such stretch, forward and backward by hand. On a GPU ``torch.compile`` does the same from the plain formulas.

All of them work in the dtype of their first argument, which is the autocast dtype under autocast, and take their
weights as they are stored.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class PackedLinear(Function):
    """q, k and v, each contiguous, from one packed weight.

    A packed product leaves them interleaved, and normalising or rotating a part of it copies that part first; the three
    gradients would be put together again by another copy. Three products into and out of slices of the weight need
    neither.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Project.

        Args:
            ctx: Autograd's.
            x (Tensor): (B, N, D).
            weight (Tensor): (3 D, D), rows of q, k and v one after the other.
            bias (Tensor, optional): (3 D,).

        Returns:
            tuple[Tensor, Tensor, Tensor]: q, k and v, each (B, N, D).
        """
        cast = weight.to(x.dtype)
        ctx.save_for_backward(x, cast)
        ctx.stored = (weight.dtype, None if bias is None else bias.dtype)
        biases = (None,) * 3 if bias is None else bias.to(x.dtype).chunk(3)
        q, k, v = (F.linear(x, w, b) for w, b in zip(cast.chunk(3), biases, strict=True))
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``weight`` and ``bias``."""
        x, weight = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.stored
        rows = [_rows(grad) for grad in grads]  # (B N, D) each
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            parts = weight.chunk(3)
            grad_x = rows[0] @ parts[0]
            for row, part in zip(rows[1:], parts[1:], strict=True):
                grad_x.addmm_(row, part)
            grad_x = grad_x.view(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.empty_like(weight)
            flat = _rows(x)
            for row, part in zip(rows, grad_weight.chunk(3), strict=True):
                torch.mm(row.t(), flat, out=part)
            grad_weight = grad_weight.to(weight_dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = torch.cat([sum_rows(row) for row in rows]).to(bias_dtype)
        return grad_x, grad_weight, grad_bias


class NormRotate(Function):
    """QK-norm and RoPE of q or k."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, cos: Tensor | None, sin: Tensor | None, eps: float | None
    ) -> Tensor:
        """Normalise over the head dimension, then rotate.

        Args:
            ctx: Autograd's.
            x (Tensor): (B, N, H, d), contiguous.
            weight (Tensor, optional): (d,), of the norm.
            cos (Tensor, optional): (N, 1, d), in the dtype of ``x``; None rotates nothing.
            sin (Tensor, optional): (N, 1, d / 2), the same for both halves of d.
            eps (float, optional): Of the norm; None for no norm.

        Returns:
            Tensor: (B, N, H, d).
        """
        dim = x.shape[-1]
        mean = rstd = cast = None
        y = x
        if eps is not None:
            cast = None if weight is None else weight.to(x.dtype)
            y, mean, rstd = torch.native_layer_norm(x, (dim,), cast, None, eps)
        ctx.norm = eps is not None
        ctx.weight_dtype = None if weight is None else weight.dtype
        ctx.save_for_backward(x if ctx.norm else None, cast, mean, rstd, cos, sin)
        return y if cos is None or sin is None else rotate(y, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x`` and ``weight``."""
        x, weight, mean, rstd, cos, sin = ctx.saved_tensors
        if cos is not None:
            grad = rotate(grad, cos, sin, back=True)
        if not ctx.norm:
            return grad, None, None, None, None
        wanted = [ctx.needs_input_grad[0], weight is not None and ctx.needs_input_grad[1], False]
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad.contiguous(), x, (x.shape[-1],), mean, rstd, weight, None, wanted
        )
        return grad_x, None if grad_weight is None else grad_weight.to(ctx.weight_dtype), None, None, None


class Linear(Function):
    """A linear layer whose bias gradient is a matrix product: half the time of a sum over rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Project.

        Args:
            ctx: Autograd's.
            x (Tensor): (B, N, D).
            weight (Tensor): (F, D).
            bias (Tensor): (F,).

        Returns:
            Tensor: (B, N, F).
        """
        cast = weight.to(x.dtype)
        ctx.save_for_backward(x, cast)
        ctx.stored = (weight.dtype, bias.dtype)
        return F.linear(x, cast, bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``weight`` and ``bias``."""
        x, weight = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.stored
        rows = _rows(grad)
        grad_x = (rows @ weight).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_weight = (rows.t() @ _rows(x)).to(weight_dtype) if ctx.needs_input_grad[1] else None
        grad_bias = sum_rows(rows).to(bias_dtype) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


class ResidualLinear(Function):
    """The end of a residual branch: residual + LayerScale * linear.

    LayerScale takes no pass of its own. Forward it multiplies while the residual is added, or, where the weight is cast
    anyhow, in the cast; backward it goes into the weight, and its own gradient comes from the weight's, so that the
    projection before scaling need not be kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor | None, residual: Tensor) -> Tensor:
        """Project, scale and add.

        Args:
            ctx: Autograd's.
            x (Tensor): (B, N, F).
            weight (Tensor): (D, F).
            bias (Tensor): (D,).
            gamma (Tensor, optional): (D,), LayerScale.
            residual (Tensor): (B, N, D), of ``x``'s dtype or a wider one.

        Returns:
            Tensor: (B, N, D), dtype of ``residual``.
        """
        if x.dtype == weight.dtype:
            y = F.linear(x, weight, bias)
            ctx.save_for_backward(x, weight, bias, gamma, None)
            return y.add_(residual) if gamma is None else torch.addcmul(residual, y, gamma, out=y)
        scaled = (weight if gamma is None else weight * gamma[:, None]).to(x.dtype)
        scaled_bias = (bias if gamma is None else bias * gamma).to(x.dtype)
        ctx.save_for_backward(x, weight, bias, gamma, scaled)
        return F.linear(x, scaled, scaled_bias).to(residual.dtype).add_(residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all five."""
        x, weight, bias, gamma, scaled = ctx.saved_tensors
        rows = _rows(grad.to(x.dtype))  # not scaled
        grad_x = grad_weight = grad_bias = grad_gamma = None
        if ctx.needs_input_grad[0]:
            if scaled is None:
                scaled = weight if gamma is None else weight * gamma[:, None]
            grad_x = (rows @ scaled).view(x.shape)
        if any(ctx.needs_input_grad[1:4]):
            grad_weight = (rows.t() @ _rows(x)).to(weight.dtype)  # (D, F)
            grad_bias = sum_rows(rows).to(bias.dtype)
            if gamma is not None:
                # The projection's sum over tokens against the gradient, without the projection.
                grad_gamma = (weight * grad_weight).sum(dim=1).addcmul_(bias, grad_bias)
                grad_weight.mul_(gamma[:, None])
                grad_bias.mul_(gamma)
        return grad_x, grad_weight, grad_bias, grad_gamma, grad


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    """Rotate each pair (i, i + d/2) of the last dimension.

    Args:
        x (Tensor): (B, N, H, d).
        cos (Tensor): (N, 1, d).
        sin (Tensor): (N, 1, d / 2).
        back (bool): By the opposite angle. Defaults to False.

    Returns:
        Tensor: (B, N, H, d).
    """
    turned = x * cos
    (first, second), (x1, x2) = turned.chunk(2, dim=-1), x.chunk(2, dim=-1)
    sign = -1 if back else 1
    first.addcmul_(x2, sin, value=-sign)
    second.addcmul_(x1, sin, value=sign)
    return turned


def rope_tables(embed: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine for :class:`NormRotate`, from timm's RoPE.

    BOS gets angle 0, so that q and k are rotated whole, not cut behind BOS and put together again.

    Args:
        embed (Tensor): (T, 2 d): sines, then cosines, each tiled twice over d.
        dtype (torch.dtype): Of the tables.

    Returns:
        tuple[Tensor, Tensor]: Cosine (1 + T, 1, d) and sine (1 + T, 1, d / 2).
    """
    dim = embed.shape[-1] // 2
    sin, cos = embed[:, None, : dim // 2].to(dtype), embed[:, None, dim:].to(dtype)
    return F.pad(cos, (0, 0, 0, 0, 1, 0), value=1.0), F.pad(sin, (0, 0, 0, 0, 1, 0))


def sum_rows(x: Tensor) -> Tensor:
    """Sum of the rows of (M, D), the gradient of a bias, as a product with ones, which accumulates in fp32."""
    return (x.new_ones(1, x.shape[0]) @ x)[0]


def _rows(x: Tensor) -> Tensor:
    """(..., D) as (M, D)."""
    return x.reshape(-1, x.shape[-1])

"""The training step beside its own matrix products and attention calls."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nepa_mm.models import NEPAHead, NEPAViT
from nepa_mm.models.backbones.archs import ARCHS

from .flops import vit_flops, vit_shape
from .plan_gpus import gpu_of_device
from .report import Report
from .timing import interleave, ratios
from .timm_blocks import predict_with_timm_blocks

HELP = """Time forward + backward of NEPA's pretraining step over the time of its own matrix products and attention
calls, run bare in the same process; on a GPU also images per second and the share of the measured matmul rate."""
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
# Of issue and paper: step over products on a CPU.
CPU_TARGET = 1.10


class GPUTarget(NamedTuple):
    """What the compiled bf16 step is to reach on a GPU, from a batch on that gives it enough to do.

    Args:
        share (float): Of the measured matmul rate.
        images (float): Per second, on an H100.
        batch (int): From which on.
    """

    share: float
    images: float
    batch: int


GPU_TARGETS = {('base', 'gelu'): GPUTarget(0.55, 3200.0, 256), ('large', 'gelu'): GPUTarget(0.60, 1000.0, 128)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``benchmark.py step``."""
    parser.add_argument('--arch', default='base', choices=list(ARCHS), help='size of the model')
    parser.add_argument('--num-layers', type=int, help='layers instead of those of --arch; quotients hardly change')
    parser.add_argument('--mlp', default='gelu', choices=['gelu', 'swiglu'], help='MLP')
    parser.add_argument('--img-size', type=int, default=224, help='side of the square image in pixels')
    parser.add_argument('--batch-size', type=int, default=8, help='images')
    parser.add_argument('--dtype', default='both', choices=['fp32', 'bf16', 'both'], help='bf16 is autocast')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'], help='where')
    parser.add_argument('--compile', action='store_true', help='torch.compile the step')
    parser.add_argument('--threads', type=int, default=2, help='threads of torch on the CPU')
    parser.add_argument('--rounds', type=int, default=5, help='timed rounds')
    parser.add_argument('--warmup', type=int, default=1, help='rounds before, not timed')
    parser.add_argument('--no-timm', dest='timm', action='store_false', help="leave out the step with timm's blocks")


def run(args: argparse.Namespace) -> Report:
    """Measure.

    Args:
        args (argparse.Namespace): See :func:`add_arguments`.

    Returns:
        Report: Per dtype the seconds of each, and their quotients round by round.
    """
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type == 'cuda':
        torch.cuda.init()
    backbone = _backbone(args).to(device).train()
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=device)
    report = Report('step', command=' '.join(['python tools/analysis/benchmark.py step', *sys.argv[2:]]))
    report.settings = {
        k: v for k, v in vars(args).items() if k in ('arch', 'num_layers', 'mlp', 'img_size', 'batch_size', 'compile')
    }
    for name in DTYPES if args.dtype == 'both' else (args.dtype,):
        dtype = DTYPES[name]
        functions: dict[str, Callable[[], object]] = {}
        functions['step'] = training_step(backbone, images, dtype, compiled=args.compile)
        if args.timm:
            functions['timm blocks'] = training_step(backbone, images, dtype, predict_with_timm_blocks)
        functions['products'] = bare_products(backbone, images, dtype)
        if device.type == 'cuda':
            functions['matmul'], matmul_flops = _big_matmul(dtype, device)
        seconds = interleave(functions, rounds=args.rounds, warmup=args.warmup)
        for what in ('step', 'timm blocks', 'products'):
            if what in seconds:
                report.add(f'{name} {what}', seconds[what], 's')
        target = ('<=', CPU_TARGET) if device.type == 'cpu' and (args.arch, args.mlp) == ('base', 'gelu') else None
        quotients = ratios(seconds['step'], seconds['products'])
        report.add(f'{name} step / products', quotients, 'ratio', target, limit=f'1: {name} products')
        if args.timm:
            quotients = ratios(seconds['timm blocks'], seconds['products'])
            report.add(f'{name} timm blocks / products', quotients, 'ratio', limit=f'1: {name} products')
        if device.type == 'cuda':
            _add_gpu_figures(report, name, args, seconds, matmul_flops)
    return report


def _backbone(args: argparse.Namespace) -> NEPAViT:
    arch = dict(ARCHS[args.arch])
    arch['num_layers'] = args.num_layers or arch['num_layers']
    torch.manual_seed(0)
    return NEPAViT(arch=arch, mlp=args.mlp, causal=True)


def _add_gpu_figures(
    report: Report, name: str, args: argparse.Namespace, seconds: dict[str, list[float]], matmul_flops: float
) -> None:
    """Images per second, and the step's FLOPs per second as a share of the measured matmul rate."""
    target = GPU_TARGETS.get((args.arch, args.mlp))
    whole = args.num_layers is None and name == 'bf16' and args.compile and args.img_size == 224
    if target is not None and not (whole and args.batch_size >= target.batch):
        target = None
    is_h100 = gpu_of_device(torch.cuda.get_device_name()) == 'h100'
    arch = dict(ARCHS[args.arch])
    arch['num_layers'] = args.num_layers or arch['num_layers']
    flops = vit_flops(vit_shape(dict(arch=arch, mlp=args.mlp), (args.img_size, args.img_size), causal=True)).training
    rates = [matmul_flops / s for s in seconds['matmul']]
    report.add(f'{name} matmul', [r / 1e12 for r in rates], 'TFLOP/s', note='8192 x 8192 x 8192')
    images = [args.batch_size / s for s in seconds['step']]
    report.add(f'{name} images', images, 'img/s', ('>=', target.images) if target and is_h100 else None)
    shares = [i * flops / r for i, r in zip(images, rates, strict=True)]
    report.add(
        f'{name} share of matmul rate',
        shares,
        'ratio',
        ('>=', target.share) if target else None,
        limit=f'{name} matmul',
        note=f'{flops / 1e9:.1f} GFLOP an image, by formula, all T x T pairs counted',
    )


def training_step(
    backbone: NEPAViT,
    images: Tensor,
    dtype: torch.dtype,
    predict: Callable[[NEPAViT, Tensor], tuple[Tensor, Tensor]] = NEPAViT.predict_next,
    compiled: bool = False,
    keep_gradients: bool = False,
) -> Callable[[], None]:
    """Forward and backward of the pretraining step: embedding, layers, loss and collapse figures.

    Args:
        backbone (NEPAViT): In train mode.
        images (Tensor): (B, C, H, W), normalised.
        dtype (torch.dtype): fp32, or a narrower one for autocast.
        predict (Callable): From backbone and images to prediction and embeddings. Defaults to the backbone's own.
        compiled (bool): Through ``torch.compile``. Defaults to False.
        keep_gradients (bool): Add to the gradients that are there. Defaults to False: each step sets them anew.

    Returns:
        Callable: One step.
    """
    head = NEPAHead()

    def loss() -> Tensor:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            return head.loss(*predict(backbone, images))['loss']

    forward = torch.compile(loss) if compiled else loss

    def step() -> None:
        if not keep_gradients:
            backbone.zero_grad(set_to_none=True)
        forward().backward()

    return step


def bare_products(backbone: NEPAViT, images: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """The step's matrix products and attention calls, and nothing else.

    For every linear layer of every block the forward product, with its bias, and both backward ones; attention forward
    and backward on tensors laid out as it likes them; the patch embedding forward and for its weight. No norm, no
    activation, no addition, no cast: weights and inputs are in ``dtype`` from the start, and inputs are shared, so that
    they are in the cache more often than in a step.

    Args:
        backbone (NEPAViT): Whose shapes and weights.
        images (Tensor): (B, C, H, W).
        dtype (torch.dtype): Of all tensors.

    Returns:
        Callable: One run of all of them.
    """
    batch, _, height, width = images.shape
    patches = height // backbone.patch_size * (width // backbone.patch_size)
    rows = batch * (1 + patches)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=images.device).to(dtype)

    linears = [m for m in backbone.layers.modules() if isinstance(m, nn.Linear)]
    weights = [m.weight.detach().to(dtype) for m in linears]
    biases = [None if m.bias is None else m.bias.detach().to(dtype) for m in linears]
    given = {size: draw(rows, size) for w in weights for size in w.shape}
    attention: Any = backbone.layers[0].attn
    shape = (batch, 1 + patches, attention.num_heads, attention.head_dim)
    q, k, v = (draw(*shape).transpose(1, 2).requires_grad_() for _ in range(3))
    grad = draw(*shape).transpose(1, 2)
    kernel = backbone.patch_embed.proj.weight.detach().flatten(1).to(dtype)
    pixels, grad_patches = draw(batch * patches, kernel.shape[1]), draw(batch * patches, kernel.shape[0])

    def products() -> None:
        for weight, bias in zip(weights, biases, strict=True):
            outputs, inputs = weight.shape
            F.linear(given[inputs], weight, bias)
            given[outputs] @ weight
            given[outputs].t() @ given[inputs]
        for _ in backbone.layers:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=backbone.causal)
            torch.autograd.grad(out, (q, k, v), grad)
        F.linear(pixels, kernel)
        grad_patches.t() @ pixels

    return products


def _big_matmul(dtype: torch.dtype, device: torch.device, side: int = 8192) -> tuple[Callable[[], Tensor], float]:
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2.0 * side**3

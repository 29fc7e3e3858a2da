"""Parity of the fast attention kernels with plain mathematics, and of a device with the release."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from nepa_mm.checkpoints import from_release
from nepa_mm.models import NEPAHead, NEPAViT
from tests import golden


def vit(device: torch.device, **kwargs) -> NEPAViT:
    torch.manual_seed(0)
    arch = dict(embed_dims=64, num_layers=2, num_heads=4, feedforward_channels=96)
    # A LayerScale of 1e-5 would hide what attention gives.
    return NEPAViT(arch=arch, patch_size=4, layer_scale_init=0.5, rope=dict(rescale=None), **kwargs).to(device)


def outputs_and_gradients(model: NEPAViT, images: torch.Tensor, kernel: SDPBackend, dtype: torch.dtype) -> tuple:
    model.zero_grad()
    amp = torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)
    with sdpa_kernel(kernel), amp:
        (out,) = model(images)
        (out.float() * torch.linspace(-1, 1, out[0].numel(), device=out.device).view_as(out[0])).sum().backward()
    return out.detach().float(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('causal', [False, True])
def test_flash_attention_equals_plain_mathematics(device, causal):
    """In bf16, as the recipes train, to bf16's rounding; the plain one in fp32 is what both are measured by."""
    model = vit(device, causal=causal, out_type='raw')
    images = torch.rand(2, 3, 32, 28, device=device) * 2 - 1
    exact, exact_grads = outputs_and_gradients(model, images, SDPBackend.MATH, torch.float32)
    plain, plain_grads = outputs_and_gradients(model, images, SDPBackend.MATH, torch.bfloat16)
    flash, flash_grads = outputs_and_gradients(model, images, SDPBackend.FLASH_ATTENTION, torch.bfloat16)

    def far(ours: torch.Tensor, theirs: torch.Tensor) -> float:
        return ((ours - theirs).norm() / theirs.norm().clamp(min=1e-12)).item()

    assert far(flash, exact) < 0.02
    assert far(flash, exact) < 2 * far(plain, exact) + 1e-3
    assert set(flash_grads) == set(exact_grads) and len(exact_grads) > 20
    for name, grad in exact_grads.items():
        assert far(flash_grads[name], grad) < max(0.06, 2 * far(plain_grads[name], grad)), name


def test_flash_attention_is_causal(device):
    """What a late patch holds changes nothing before it."""
    model = vit(device, causal=True, out_type='raw').eval()
    images = torch.rand(1, 3, 16, 16, device=device)
    other = images.clone()
    other[..., 12:, 12:] += 1
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.autocast(device.type, torch.bfloat16):
        (a,), (b,) = model(images), model(other)
    assert torch.equal(a[:, :-1], b[:, :-1]) and not torch.equal(a[:, -1], b[:, -1])


@pytest.mark.parametrize('name', golden.PRETRAIN_CASES)
def test_parity_with_the_release(device, name):
    case, data = golden.CASES[name], golden.tensors(name)
    model = golden.build_backbone(case['config'], causal=case['is_causal']).eval()
    model.load_state_dict(from_release(golden.part(data, 'state.')))
    model.to(device)
    prediction, embeddings = model.predict_next(data['pixel_values'].to(device))
    loss = NEPAHead().loss(prediction, embeddings)['loss']
    loss.backward()
    # Another order of the same sums.
    close = dict(atol=5e-5, rtol=0)
    torch.testing.assert_close(embeddings.cpu(), data['input_embedding'], **close)
    torch.testing.assert_close(prediction.cpu(), data['last_hidden_state'], **close)
    torch.testing.assert_close(loss.cpu(), data['loss'].squeeze(), **close)
    expected = from_release(golden.part(data, 'grad.'))
    for n, p in model.named_parameters():
        atol = 5e-5 * expected[n].abs().max().item()
        torch.testing.assert_close(p.grad.cpu(), expected[n], atol=atol, rtol=0, msg=lambda text, n=n: f'{n}: {text}')

"""A training step in bf16, compiled, with fused kernels, sharded, and without waiting for the device."""

from contextlib import contextmanager

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nepa_mm.engine import AutocastOptimWrapper
from nepa_mm.engine.message_hub import DeferredMessageHub
from nepa_mm.models import NEPA

ARCH = dict(embed_dims=64, num_layers=2, num_heads=4, feedforward_channels=128)


def nepa(device: torch.device, **kwargs) -> NEPA:
    torch.manual_seed(0)
    backbone = dict(type='NEPAViT', arch=ARCH, patch_size=4, layer_scale_init=0.1, rope=dict(rescale=None)) | kwargs
    model = NEPA(backbone).to(device).train()
    model.data_preprocessor._non_blocking = True  # as the runner sets it
    return model


def batch(device: torch.device, seed: int = 0) -> dict:
    """As a data loader gives it: uint8 in this process's memory, pinned where a GPU will fetch it."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing='ij')
    waves = torch.rand(4, 3, 1, 1, generator=generator) * x + torch.rand(4, 3, 1, 1, generator=generator) * y
    images = (127.5 + 100 * torch.sin(waves)).byte()
    return dict(inputs=images.pin_memory() if device.type == 'cuda' else images, data_samples=[])


def adamw(model: nn.Module, lr: float = 1e-3, **kwargs) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.05, **kwargs)


def train(model: NEPA, wrapper: OptimWrapper, device: torch.device, steps: int) -> list[float]:
    losses = [model.train_step(batch(device, seed=i % 2), wrapper)['loss'] for i in range(steps)]
    return torch.stack([loss.detach() for loss in losses]).tolist()


def test_bfloat16_trains_as_float32_does(device):
    plain, mixed = nepa(device), nepa(device)
    exact = train(plain, OptimWrapper(adamw(plain)), device, 20)
    rounded = train(mixed, AutocastOptimWrapper(optimizer=adamw(mixed)), device, 20)
    assert exact[-1] < exact[0] - 0.1, 'it learns'
    assert rounded != exact
    torch.testing.assert_close(torch.tensor(rounded), torch.tensor(exact), atol=0.02, rtol=0)
    assert all(p.dtype == torch.float32 for p in mixed.parameters())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_compiled_equals_eager(device, dtype):
    """On the CPU the compiler traces forward and backward, and eager kernels run: building its own takes minutes."""
    model = nepa(device)
    images = model.data_preprocessor(batch(device), training=False)['inputs']
    images = images[0] if isinstance(images, list) else images

    def loss() -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model.loss(images, [])['loss']

    def gradients(function) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        value = function()
        value.backward()
        return value.detach(), [p.grad.clone() for p in model.parameters()]

    torch._dynamo.reset()
    compiled = torch.compile(loss, backend='inductor' if device.type == 'cuda' else 'aot_eager')
    (ours, our_grads), (theirs, their_grads) = gradients(compiled), gradients(loss)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    for a, b in zip(our_grads, their_grads, strict=True):
        assert (a - b).norm() <= 5 * tolerance * b.norm() + 1e-7


@pytest.mark.parametrize('kind', ['fused', 'foreach'])
def test_kernels_of_the_optimizer_equal_the_plain_ones(device, kind):
    plain, quick = nepa(device), nepa(device)
    train(plain, OptimWrapper(adamw(plain, foreach=False, fused=False)), device, 3)
    train(quick, OptimWrapper(adamw(quick, **{kind: True})), device, 3)
    for (name, a), b in zip(plain.named_parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f'{name}: {text}')


class _NoReading(TorchDispatchMode):
    """Refuses what would make a CPU wait for a GPU: reading a tensor's value.

    Copies, which have nowhere to go here, are traced in tests/test_models/test_host_copies.py.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError('a value of a tensor is read')
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting(device: torch.device):
    if device.type != 'cuda':
        with _NoReading():
            yield
        return
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_a_step_does_not_wait_for_the_device(device):
    """From the batch in pinned memory to the updated weights, clipped, in bf16, with the runner's own message hub."""
    DeferredMessageHub.get_instance('test_a_step_does_not_wait')
    model = nepa(device, rope=dict(rescale=2.0, shift=0.1, jitter=1.1))
    wrapper = AutocastOptimWrapper(optimizer=adamw(model, fused=True), clip_grad=dict(max_norm=1.0))
    train(model, wrapper, device, 2)  # state of the optimizer, caches of kernels
    batches = [batch(device, seed) for seed in range(2)]
    before = [p.detach().clone() for p in model.parameters()]
    with no_waiting(device):
        for data in batches:
            model.train_step(data, wrapper)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(RuntimeError), no_waiting(device):
        next(model.parameters()).sum().item()


def test_preprocessing_on_the_device_is_that_of_the_cpu(device):
    data = batch(device)
    inputs = [
        m.data_preprocessor(dict(data), training=True)['inputs'] for m in (nepa(device), nepa(torch.device('cpu')))
    ]
    ours, theirs = (i[0] if isinstance(i, list) else i for i in inputs)
    assert ours.device.type == device.type and ours.dtype == torch.float32
    torch.testing.assert_close(ours.cpu(), theirs, atol=1e-6, rtol=0)


@pytest.fixture
def one_rank(device):
    """A process group of this process alone."""
    store = torch.distributed.HashStore()
    backend = 'nccl' if device.type == 'cuda' else 'gloo'
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_fsdp_on_one_rank_equals_no_fsdp(device, one_rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain, sharded = nepa(device), nepa(device)
    mesh = init_device_mesh(device.type, (1,))
    for layer in sharded.backbone.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    # forward() and not a method that FSDP does not know of: it gathers what it has sharded.
    for model in (plain, sharded):
        optimizer = adamw(model)
        for seed in range(2):
            images = model.data_preprocessor(batch(device, seed), training=True)['inputs']
            images = images[0] if isinstance(images, list) else images
            model(images, [], mode='loss')['loss'].backward()
            optimizer.step()
            optimizer.zero_grad()
    for (name, a), b in zip(plain.named_parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(
            b.full_tensor(), a, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f'{name}: {text}'
        )

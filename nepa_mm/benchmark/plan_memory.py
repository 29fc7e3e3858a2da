"""Memory of one GPU in training: what does not depend on the batch, and what each image adds."""

from dataclasses import dataclass

from .plan_model import ModelCount

# What a process takes before its first tensor, and cuBLAS' workspace: assumed, not measured.
CONTEXT = 1_000_000_000
FP32, BF16 = 4, 2
# Moments that an optimizer keeps per weight that learns.
MOMENTS = {'AdamW': 2, 'Adam': 2, 'FusedAdamW': 2, 'SGD': 1, 'LARS': 1, 'Lamb': 2, 'LAMB': 2}


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Args:
        weights (int): fp32 weights, and what a layer that FSDP gathers takes.
        casts (int): bfloat16 copies of weights that autocast keeps for the backward pass, and position tables.
        gradients (int): fp32 gradients.
        buckets (int): DDP's copy of them, in the order in which they travel.
        optimizer (int): Its moments.
        ema (int): Averaged weights.
        context (int): CUDA context and library workspaces.
        per_image (int): Activations kept for the backward pass, of one image.
    """

    weights: int
    casts: int
    gradients: int
    buckets: int
    optimizer: int
    ema: int
    context: int
    per_image: int

    @property
    def fixed(self) -> int:
        """Everything but the activations."""
        return self.weights + self.casts + self.gradients + self.buckets + self.optimizer + self.ema + self.context

    def of_batch(self, batch: int) -> int:
        """Bytes at a batch size."""
        return self.fixed + batch * self.per_image

    def largest_batch(self, capacity: int) -> int:
        """Images that fit into ``capacity`` bytes; 0 where none does."""
        return max(0, (capacity - self.fixed) // self.per_image)


def training_memory(
    count: ModelCount, gpus: int, optimizer: str, ema: bool, with_cp: bool = False, fsdp: bool = False
) -> Memory:
    """Memory of one of ``gpus`` processes.

    Args:
        count (ModelCount): The model.
        gpus (int): GPUs.
        optimizer (str): Its class name.
        ema (bool): Whether an average of the weights is kept.
        with_cp (bool): Activation checkpointing. Defaults to False.
        fsdp (bool): Weights, gradients, moments and average in shards, a layer gathered at a time (and the next one,
            fetched ahead). Defaults to False: every process has all, and several synchronise by DDP.

    Returns:
        Memory: In bytes.
    """
    shards = gpus if fsdp else 1
    weights, learning = FP32 * count.parameters, FP32 * count.learning
    casts = count.kept_once_cp if with_cp else count.kept_once
    return Memory(
        weights=weights // shards + (2 * FP32 * count.largest_layer if fsdp else 0),
        casts=casts,
        gradients=learning // shards,
        buckets=learning if gpus > 1 and not fsdp else 0,
        optimizer=MOMENTS.get(optimizer, 2) * learning // shards,
        ema=weights // shards if ema else 0,
        context=CONTEXT,
        per_image=count.kept_per_image_cp if with_cp else count.kept_per_image,
    )

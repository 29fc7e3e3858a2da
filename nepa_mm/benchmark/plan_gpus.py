"""What the makers of GPUs publish: the rate of dense 16-bit matrix products, and memory."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """A GPU as its data sheet has it.

    Args:
        name (str): Its name in full.
        tflops (float): 10^12 operations per second of dense bfloat16 products with fp32 accumulation; of float16 where
            ``bfloat16`` is False. Data sheets that state the rate with sparsity state twice this.
        memory (int): Bytes; data sheets' GB, taken as 10^9. A card reports some percent more (an 80 GB H100 85.5e9);
            they are left to the CUDA context and to fragmentation.
        source (str): The data sheet.
        bfloat16 (bool): Whether its matrix units know bfloat16. Defaults to True.
    """

    name: str
    tflops: float
    memory: int
    source: str
    bfloat16: bool = True


def _gpu(name: str, tflops: float, gigabytes: int, source: str, bfloat16: bool = True) -> GPU:
    return GPU(name, tflops, gigabytes * 10**9, source, bfloat16)


GPUS: dict[str, GPU] = {
    'b200': _gpu('NVIDIA B200', 2250, 180, 'NVIDIA HGX B200 data sheet, per GPU'),
    'h200': _gpu('NVIDIA H200 SXM', 989, 141, 'NVIDIA H200 data sheet'),
    'h100': _gpu('NVIDIA H100 SXM', 989, 80, 'NVIDIA H100 data sheet'),
    'h100-pcie': _gpu('NVIDIA H100 PCIe', 756, 80, 'NVIDIA H100 data sheet'),
    'a100-80g': _gpu('NVIDIA A100 80 GB', 312, 80, 'NVIDIA A100 data sheet'),
    'a100-40g': _gpu('NVIDIA A100 40 GB', 312, 40, 'NVIDIA A100 data sheet'),
    'l40s': _gpu('NVIDIA L40S', 362, 48, 'NVIDIA L40S data sheet'),
    'l4': _gpu('NVIDIA L4', 121, 24, 'NVIDIA L4 data sheet'),
    'a10': _gpu('NVIDIA A10', 125, 24, 'NVIDIA A10 data sheet'),
    'a6000': _gpu('NVIDIA RTX A6000', 155, 48, 'NVIDIA Ampere GA102 white paper'),
    'rtx3090': _gpu('NVIDIA GeForce RTX 3090', 71, 24, 'NVIDIA Ampere GA102 white paper'),
    'rtx4090': _gpu('NVIDIA GeForce RTX 4090', 165, 24, 'NVIDIA Ada white paper'),
    'rtx5090': _gpu('NVIDIA GeForce RTX 5090', 209, 32, 'NVIDIA RTX Blackwell white paper'),
    'v100': _gpu('NVIDIA V100 32 GB', 125, 32, 'NVIDIA V100 data sheet, float16', bfloat16=False),
    't4': _gpu('NVIDIA T4', 65, 16, 'NVIDIA T4 data sheet, float16', bfloat16=False),
}

# What torch.cuda.get_device_name() says, without the maker. The whole name counts: one that has more in it is of a card
# with other figures, such as an "RTX 3090 Ti", an "H200 NVL", or a slice of one (MIG).
_DEVICE_NAMES: dict[str, str] = {
    r'B200': 'b200',
    r'H200': 'h200',
    r'H100 80GB HBM3': 'h100',
    r'H100 PCIe': 'h100-pcie',
    r'A100-SXM4-80GB|A100 80GB PCIe': 'a100-80g',
    r'A100-SXM4-40GB|A100-PCIE-40GB': 'a100-40g',
    r'L40S': 'l40s',
    r'L4': 'l4',
    r'A10': 'a10',
    r'RTX A6000': 'a6000',
    r'GeForce RTX 3090': 'rtx3090',
    r'GeForce RTX 4090': 'rtx4090',
    r'GeForce RTX 5090': 'rtx5090',
    r'V100-(?:SXM2|SXM3|PCIE|DGXS)-32GB': 'v100',
    r'T4': 't4',
}


def gpu_of_device(device_name: str) -> str | None:
    """The key of :data:`GPUS` for a name that torch reports.

    Args:
        device_name (str): From ``torch.cuda.get_device_name()``, such as 'NVIDIA H100 80GB HBM3'.

    Returns:
        str | None: Such as 'h100'; None for a device that the table does not hold, and for a slice of one.
    """
    name = re.sub(r'^(NVIDIA|Tesla) ', '', device_name)
    return next((key for pattern, key in _DEVICE_NAMES.items() if re.fullmatch(pattern, name)), None)

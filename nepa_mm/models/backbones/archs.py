"""Sizes of NEPAViT by name, and the check of an own one."""

from collections.abc import Mapping

from ..utils import is_count

ARCHS: dict[str, dict[str, int]] = {
    name: dict(embed_dims=d, num_layers=n, num_heads=h, feedforward_channels=4 * d)
    for name, d, n, h in (
        ('tiny', 192, 12, 3),
        ('small', 384, 12, 6),
        ('base', 768, 12, 12),
        ('large', 1024, 24, 16),
        ('huge', 1280, 32, 16),
    )
}


def check_arch(arch: str | Mapping[str, int]) -> dict[str, int]:
    """Settings of an architecture.

    Args:
        arch (str | Mapping[str, int]): A name, or the four settings themselves.

    Returns:
        dict[str, int]: ``embed_dims``, ``num_layers``, ``num_heads``, ``feedforward_channels``.

    Raises:
        ValueError: The name is unknown, a setting is missing, unknown or no positive integer, or the heads do not
        divide.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(
                f'NEPAViT: arch={arch!r} is unknown; choose one of {list(ARCHS)}, or a dict of {list(ARCHS["base"])}.'
            )
        return dict(ARCHS[arch])
    if not isinstance(arch, Mapping):
        raise ValueError(f'NEPAViT: arch={arch!r} is neither a name nor a dict; choose one of {list(ARCHS)}.')
    settings = dict(arch)
    if set(settings) != set(ARCHS['base']):
        raise ValueError(f'NEPAViT: an arch dict needs exactly the keys {list(ARCHS["base"])}, got {list(settings)}.')
    for key, value in settings.items():
        if not is_count(value):
            raise ValueError(f'NEPAViT: arch[{key!r}]={value!r} is not a positive integer.')
    if settings['embed_dims'] % settings['num_heads']:
        raise ValueError(
            f'NEPAViT: embed_dims={settings["embed_dims"]} is not divisible by num_heads={settings["num_heads"]}.'
        )
    return settings

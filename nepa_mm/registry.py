"""How nepa_mm's classes reach the registries of mmpretrain and mmseg.

Every class of this package is registered once, in mmengine's *root* registries. A host registry (mmpretrain's or
mmseg's) looks a name up in itself and then in its ancestors, so an unprefixed ``type='NEPAViT'`` builds from the
configs of both hosts.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from mmengine.registry import Registry


def import_with(registry: Registry, module: str) -> None:
    """Have a module imported when a registry is first looked into, after what the registry imports by itself.

    Args:
        registry (Registry): A host's registry.
        module (str): The module; imported at once if the registry has been looked into.
    """
    if registry._imported:
        import_module(module)
    elif module not in registry._locations:
        # A new list: mmengine shares its default `locations=[]` between registries.
        registry._locations = [*registry._locations, module]


def import_by_need(package: str, *by_host: tuple[Registry, Mapping[str, str]]) -> Callable[[str], Any]:
    """Leave some classes of a package unimported until a config or a caller asks for them.

    Some of our classes inherit from a host's classes (``NEPA`` from mmpretrain's ``BaseSelfSupervisor``,
    ``CamVidDataset`` from mmseg's ``BaseSegDataset``), and importing those imports the host's whole model zoo or
    data set collection. A segmentation run must not pay for mmpretrain's zoo, so these modules ride on the import
    that the host's registry does for itself when it is first looked into.

    Args:
        package (str): ``__name__`` of the package that offers the classes.
        *by_host (tuple[Registry, Mapping[str, str]]): A host's registry (its root, looked into where no default scope
            is set, works too), and class name to the module whose import defines and registers it.

    Returns:
        Callable[[str], Any]: The package's module-level ``__getattr__`` (PEP 562).
    """
    for host_registry, modules in by_host:
        for module in dict.fromkeys(modules.values()):
            for registry in (host_registry, host_registry.root):
                import_with(registry, module)

    def module_getattr(name: str) -> Any:
        for _, modules in by_host:
            if name in modules:
                return getattr(import_module(modules[name]), name)
        raise AttributeError(f'module {package!r} has no attribute {name!r}')

    return module_getattr

"""Check of the packages nepa_mm stands on, before anything imports them.

OpenMMLab comes from two families of distributions, upstream (``mmengine``, ``mmcv``, ...) and its
maintained continuation (``onedl-mmengine``, ``onedl-mmcv``, ...). Both install the same module
names, so one over the other leaves a mixture that fails far from its cause. Only metadata is read
here: the check costs milliseconds, and works where importing torch or mmcv would fail.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

# These floors, not exact pins: each is the oldest release that was tried. There is no upper bound,
# because a cap at import time turns every new release of a host into a broken installation.
TIMM_FLOOR = '1.0.26'  # first with `is_causal` in EvaBlock and AttentionRope
OPENMM_INSTALL = 'pip install -e .[openmm]'


@dataclass(frozen=True)
class Host:
    """One OpenMMLab package and the distributions that provide it.

    Attributes:
        module (str): Import name.
        onedl (str): Distribution of the maintained continuation.
        onedl_floor (str): Its oldest release that was tried.
        upstream (tuple[str, ...]): Upstream distributions; the first is the one to install.
        upstream_floor (str): Oldest upstream release that was tried.
    """

    module: str
    onedl: str
    onedl_floor: str
    upstream: tuple[str, ...]
    upstream_floor: str

    @property
    def distributions(self) -> tuple[str, ...]:
        """All distributions that own this module's files, upstream first."""
        return (*self.upstream, self.onedl)


HOSTS = (
    Host('mmengine', 'onedl-mmengine', '0.10.12', ('mmengine', 'mmengine-lite'), '0.10.7'),
    Host('mmcv', 'onedl-mmcv', '2.3.6', ('mmcv', 'mmcv-lite', 'mmcv-full'), '2.1.0'),
    Host('mmpretrain', 'onedl-mmpretrain', '1.3.6', ('mmpretrain',), '1.2.0'),
    Host('mmseg', 'onedl-mmsegmentation', '1.4.2', ('mmsegmentation',), '1.2.2'),
)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with an installation and the commands that put it right.

    Attributes:
        problems (tuple[str, ...]): One sentence each; empty when all is well.
        commands (tuple[str, ...]): Shell commands, in order.
    """

    problems: tuple[str, ...]
    commands: tuple[str, ...]


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, None when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def module_exists(module: str) -> bool:
    """Whether a top-level module can be found, without importing it.

    A folder without ``__init__.py`` does not count: that is what an uninstallation leaves behind.
    """
    try:
        spec = find_spec(module)
    except ValueError:  # in sys.modules without a spec: somebody put it there on purpose
        return True
    return spec is not None and spec.origin is not None


def is_older(version: str, floor: str) -> bool:
    """Compare release numbers; a version that does not start with one is never older.

    Pre-release and local suffixes are ignored, so that a development build of the floor passes.
    """

    def release(text: str) -> tuple[int, ...]:
        match = re.match(r'\d+(\.\d+)*', text)
        return tuple(int(part) for part in match.group().split('.')) if match else ()

    given, wanted = release(version), release(floor)
    if not given:
        return False
    length = max(len(given), len(wanted))
    return given + (0,) * (length - len(given)) < wanted + (0,) * (length - len(wanted))


def diagnose(
    version_of: Callable[[str], str | None] = installed_version,
    has_module: Callable[[str], bool] = module_exists,
) -> Diagnosis:
    """Find everything that is wrong with the stack, and the shortest way to put it right.

    Args:
        version_of (Callable): Maps a distribution's name to its version, or to None when it is not
            installed. Defaults to looking in this environment.
        has_module (Callable): Tells whether a module can be found. Defaults to looking in this
            environment.

    Returns:
        Diagnosis: Problems and commands, both empty when nothing is wrong.
    """
    owners = {host: [name for name in host.distributions if version_of(name) is not None] for host in HOSTS}
    basic_problems, basic_wishes = _check_basics(version_of, has_module)
    overlaid = [host for host in HOSTS if len(owners[host]) > 1]
    host_problems, abandoned, wishes = [], [], []
    for host in HOSTS:
        if host in overlaid:
            continue
        problem = _check_host(host, owners[host], version_of, has_module)
        if problem:
            host_problems.append(problem)
            wishes.append(host)
            if not has_module(host.module):
                abandoned += owners[host]
    mixture_problems = [
        f'{" and ".join(owners[host])} are installed over each other: both own the files of {host.module}'
        for host in overlaid
    ]
    problems = (*basic_problems, *mixture_problems, *host_problems)

    upstream = [name for host in HOSTS for name in owners[host] if name in host.upstream]
    onedl = [host.onedl for host in HOSTS if host.onedl in owners[host]]
    if overlaid or (wishes and upstream and onedl):
        # [openmm] must not land on any upstream distribution that is left.
        gone = [
            name for host in HOSTS for name in owners[host] if name in upstream or host in overlaid or name in abandoned
        ]
        commands = [f'pip uninstall -y {" ".join(gone)}', OPENMM_INSTALL]
    elif wishes and upstream:
        commands = _upstream_commands(wishes, owners, abandoned)
        if basic_wishes:
            commands.append(_pip_install(basic_wishes))
    elif wishes:
        commands = [f'pip uninstall -y {" ".join(abandoned)}'] if abandoned else []
        commands.append(OPENMM_INSTALL)
    else:
        commands = [_pip_install(basic_wishes)] if basic_wishes else []
    return Diagnosis(problems, tuple(commands))


def check_stack(
    version_of: Callable[[str], str | None] = installed_version,
    has_module: Callable[[str], bool] = module_exists,
) -> None:
    """Refuse a missing, mixed-up or too old stack with one error that says how to put it right.

    Args:
        version_of (Callable): See :func:`diagnose`.
        has_module (Callable): See :func:`diagnose`.

    Raises:
        ImportError: Lists every problem and the commands that fix them.
    """
    diagnosis = diagnose(version_of, has_module)
    if not diagnosis.problems:
        return
    problems = '\n'.join(f'  - {problem}' for problem in diagnosis.problems)
    commands = '\n'.join(f'    {command}' for command in diagnosis.commands)
    raise ImportError(
        f'nepa_mm cannot work with what is installed for {sys.executable}:\n{problems}\n'
        f'To fix it, run in the folder that holds setup.py of nepa_mm:\n{commands}'
    )


def _check_basics(
    version_of: Callable[[str], str | None], has_module: Callable[[str], bool]
) -> tuple[list[str], list[str]]:
    """Check torch, torchvision and timm: problems, and what to hand to pip."""
    problems, wishes = [], []
    for module in ('torch', 'torchvision'):
        if not has_module(module):
            problems.append(f'{module} is not installed')
            wishes.append(module)
    timm = version_of('timm')
    if not has_module('timm'):
        problems.append('timm is not installed')
        wishes.append(f'"timm>={TIMM_FLOOR}"')
    elif timm is not None and is_older(timm, TIMM_FLOOR):
        problems.append(f'timm {timm} is too old: {TIMM_FLOOR} or newer is needed')
        wishes.append(f'"timm>={TIMM_FLOOR}"')
    return problems, wishes


def _check_host(
    host: Host,
    owners: list[str],
    version_of: Callable[[str], str | None],
    has_module: Callable[[str], bool],
) -> str | None:
    """Check one OpenMMLab package that at most one distribution provides."""
    if not has_module(host.module):
        if owners:
            return (
                f'{owners[0]} is listed as installed but its module {host.module} is gone, as '
                'happens when a distribution that owned the same files is uninstalled'
            )
        return f'{host.module} is not installed'
    if not owners:  # a source tree on the path: nothing tells its version
        return None
    name, version = owners[0], version_of(owners[0]) or ''
    floor = host.onedl_floor if name == host.onedl else host.upstream_floor
    if is_older(version, floor):
        return f'{name} {version} is too old: {floor} or newer is needed'
    if name == 'mmcv-lite' and version_of('mmsegmentation') is not None:
        return 'mmcv-lite lacks the compiled mmcv.ops that mmsegmentation imports'
    return None


def _upstream_commands(wishes: list[Host], owners: dict[Host, list[str]], abandoned: list[str]) -> list[str]:
    """Commands that complete an upstream stack without bringing the other family in."""
    gone, plain, mim = list(abandoned), [], []
    for host in wishes:
        # What is there is upgraded under its own name: mmengine over mmengine-lite would be a mix.
        name = next(iter(owners[host]), host.upstream[0])
        if host.module != 'mmcv':
            plain.append(f'"{name}>={host.upstream_floor}"')
            continue
        if name != 'mmcv' and name not in gone:
            gone.append(name)
        # mim picks the build whose compiled ops fit the installed torch.
        mim.append(f'pip install -U openmim && mim install "mmcv>={host.upstream_floor}"')
    commands = [f'pip uninstall -y {" ".join(gone)}'] if gone else []
    return commands + ([_pip_install(plain)] if plain else []) + mim


def _pip_install(wishes: list[str]) -> str:
    """Install what is missing and upgrade what is too old, leaving the rest alone."""
    return f'pip install -U {" ".join(wishes)}'

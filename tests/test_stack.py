"""The check of the stack: which installations pass, and the exact advice for those that do not."""

import subprocess
import sys
from pathlib import Path

import pytest

from nepa_mm.stack import (
    HOSTS,
    TIMM_FLOOR,
    check_stack,
    diagnose,
    installed_version,
    is_older,
    module_exists,
)

ROOT = Path(__file__).resolve().parents[1]
BASICS = {'torch': '2.14.1', 'torchvision': '0.29.1', 'timm': '1.0.31'}
ONEDL = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmpretrain': '1.3.6',
    'onedl-mmsegmentation': '1.4.2',
}
UPSTREAM = {
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmpretrain': '1.2.0',
    'mmsegmentation': '1.2.2',
}
MODULE_OF = {name: host.module for host in HOSTS for name in host.distributions}
OPENMM = 'pip install -e .[openmm]'


def diagnose_fake(distributions: dict[str, str], gone: tuple[str, ...] = ()):
    """Diagnose an environment with these distributions, the modules in ``gone`` being absent."""
    modules = {MODULE_OF.get(name, name) for name in distributions} - set(gone)
    return diagnose(distributions.get, modules.__contains__)


def without(distributions: dict[str, str], *names: str) -> dict[str, str]:
    return {name: version for name, version in distributions.items() if name not in names}


@pytest.mark.parametrize(
    'distributions',
    [
        {**BASICS, **ONEDL},
        {**BASICS, **UPSTREAM},
        {**BASICS, **UPSTREAM, 'mmcv': '9.0.0', 'mmsegmentation': '9.0', 'mmengine': '1.0.0rc1'},
        {**BASICS, **ONEDL, 'timm': TIMM_FLOOR, 'onedl-mmcv': '3.0.0+cu130'},
        {**BASICS, **without(UPSTREAM, 'mmengine'), 'mmengine-lite': '0.10.7'},
    ],
    ids=['onedl', 'upstream', 'no-upper-bounds', 'at-the-floor', 'mmengine-lite'],
)
def test_good_stacks_pass(distributions):
    assert diagnose_fake(distributions) == diagnose_fake({**BASICS, **ONEDL})
    assert diagnose_fake(distributions).problems == ()
    assert diagnose_fake(distributions).commands == ()


def test_source_tree_without_metadata_passes():
    modules = {'torch', 'torchvision', 'timm', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg'}
    assert diagnose(BASICS.get, modules.__contains__).problems == ()


CASES = {
    'nothing installed': (
        {},
        (),
        [
            'torch is not installed',
            'torchvision is not installed',
            'timm is not installed',
            'mmengine is not installed',
            'mmcv is not installed',
            'mmpretrain is not installed',
            'mmseg is not installed',
        ],
        [OPENMM],
    ),
    'timm too old': (
        {**BASICS, **ONEDL, 'timm': '1.0.9'},
        (),
        ['timm 1.0.9 is too old: 1.0.26 or newer is needed'],
        ['pip install -U "timm>=1.0.26"'],
    ),
    'no torchvision beside upstream': (
        {**without(BASICS, 'torchvision'), **UPSTREAM},
        (),
        ['torchvision is not installed'],
        ['pip install -U torchvision'],
    ),
    'onedl incomplete and timm too old': (
        {**BASICS, **without(ONEDL, 'onedl-mmpretrain'), 'timm': '0.9.16'},
        (),
        ['timm 0.9.16 is too old: 1.0.26 or newer is needed', 'mmpretrain is not installed'],
        [OPENMM],
    ),
    'onedl too old': (
        {**BASICS, **ONEDL, 'onedl-mmengine': '0.10.9'},
        (),
        ['onedl-mmengine 0.10.9 is too old: 0.10.12 or newer is needed'],
        [OPENMM],
    ),
    'one mixed pair': (
        {**BASICS, **ONEDL, 'mmengine': '0.10.7'},
        (),
        ['mmengine and onedl-mmengine are installed over each other: both own the files of mmengine'],
        ['pip uninstall -y mmengine onedl-mmengine', OPENMM],
    ),
    'every pair mixed': (
        {**BASICS, **ONEDL, **without(UPSTREAM, 'mmcv'), 'mmcv-lite': '2.1.0'},
        (),
        [
            'mmengine and onedl-mmengine are installed over each other: both own the files of mmengine',
            'mmcv-lite and onedl-mmcv are installed over each other: both own the files of mmcv',
            'mmpretrain and onedl-mmpretrain are installed over each other: both own the files of mmpretrain',
            'mmsegmentation and onedl-mmsegmentation are installed over each other: both own the files of mmseg',
        ],
        [
            'pip uninstall -y mmengine onedl-mmengine mmcv-lite onedl-mmcv mmpretrain '
            'onedl-mmpretrain mmsegmentation onedl-mmsegmentation',
            OPENMM,
        ],
    ),
    'mixed pair, the rest upstream: [openmm] must not land on it': (
        {**BASICS, **UPSTREAM, 'onedl-mmengine': '0.10.12'},
        (),
        ['mmengine and onedl-mmengine are installed over each other: both own the files of mmengine'],
        ['pip uninstall -y mmengine onedl-mmengine mmcv mmpretrain mmsegmentation', OPENMM],
    ),
    'both families, one package missing': (
        {**BASICS, 'mmengine': '0.10.7', 'onedl-mmcv': '2.3.6', 'onedl-mmpretrain': '1.3.6'},
        (),
        ['mmseg is not installed'],
        ['pip uninstall -y mmengine', OPENMM],
    ),
    'half of a mixed pair uninstalled': (
        {**BASICS, **ONEDL},
        ('mmcv',),
        [
            'onedl-mmcv is listed as installed but its module mmcv is gone, as happens when a '
            'distribution that owned the same files is uninstalled'
        ],
        ['pip uninstall -y onedl-mmcv', OPENMM],
    ),
    'upstream incomplete stays upstream': (
        {**without(BASICS, 'timm'), **without(UPSTREAM, 'mmsegmentation'), 'mmpretrain': '1.0.1'},
        (),
        [
            'timm is not installed',
            'mmpretrain 1.0.1 is too old: 1.2.0 or newer is needed',
            'mmseg is not installed',
        ],
        [
            'pip install -U "mmpretrain>=1.2.0" "mmsegmentation>=1.2.2"',
            'pip install -U "timm>=1.0.26"',
        ],
    ),
    'upstream with mmcv-lite': (
        {**BASICS, **without(UPSTREAM, 'mmcv'), 'mmcv-lite': '2.1.0'},
        (),
        ['mmcv-lite lacks the compiled mmcv.ops that mmsegmentation imports'],
        [
            'pip uninstall -y mmcv-lite',
            'pip install -U openmim && mim install "mmcv>=2.1.0"',
        ],
    ),
    'upstream mmengine-lite is upgraded under its own name': (
        {**BASICS, **without(UPSTREAM, 'mmengine'), 'mmengine-lite': '0.8.0'},
        (),
        ['mmengine-lite 0.8.0 is too old: 0.10.7 or newer is needed'],
        ['pip install -U "mmengine-lite>=0.10.7"'],
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_exact_advice(case):
    distributions, gone, problems, commands = CASES[case]
    diagnosis = diagnose_fake(distributions, gone)
    assert list(diagnosis.problems) == problems
    assert list(diagnosis.commands) == commands


def test_one_error_lists_everything():
    with pytest.raises(ImportError) as caught:
        check_stack({**ONEDL, 'timm': '1.0.9'}.get, {'timm', 'mmengine', 'mmcv'}.__contains__)
    lines = str(caught.value).splitlines()
    assert lines[0] == f'nepa_mm cannot work with what is installed for {sys.executable}:'
    assert lines[1:4] == [
        '  - torch is not installed',
        '  - torchvision is not installed',
        '  - timm 1.0.9 is too old: 1.0.26 or newer is needed',
    ]
    assert [line.split()[1] for line in lines[4:6]] == ['onedl-mmpretrain', 'onedl-mmsegmentation']
    assert lines[-2:] == [
        '    pip uninstall -y onedl-mmpretrain onedl-mmsegmentation',
        '    pip install -e .[openmm]',
    ]


@pytest.mark.parametrize(
    ('version', 'floor', 'older'),
    [
        ('1.0.9', '1.0.26', True),
        ('1.0.26', '1.0.26', False),
        ('1.0.26.dev0', '1.0.26', False),
        ('1.1', '1.0.26', False),
        ('2.1', '2.1.0', False),
        ('0.10.12', '0.9.13', False),
        ('2.0.9+cu118', '2.1.0', True),
        ('unknown', '2.1.0', False),
    ],
)
def test_is_older(version, floor, older):
    assert is_older(version, floor) is older


def test_lookups_read_this_environment(tmp_path, monkeypatch):
    (tmp_path / 'nepa_leftover' / '__pycache__').mkdir(parents=True)
    (tmp_path / 'nepa_whole').mkdir()
    (tmp_path / 'nepa_whole' / '__init__.py').write_text('raise RuntimeError("imported")\n')
    (tmp_path / 'nepa_whole-3.2.1.dist-info').mkdir()
    (tmp_path / 'nepa_whole-3.2.1.dist-info' / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: nepa-whole\nVersion: 3.2.1\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert module_exists('nepa_whole')
    assert not module_exists('nepa_leftover')
    assert not module_exists('nepa_absent')
    assert installed_version('nepa-whole') == '3.2.1'
    assert installed_version('nepa-absent') is None


def test_import_gives_one_error(tmp_path):
    """A real ``import nepa_mm`` where an old timm comes first on the path."""
    info = tmp_path / 'timm-0.6.13.dist-info'
    info.mkdir()
    info.joinpath('METADATA').write_text('Metadata-Version: 2.1\nName: timm\nVersion: 0.6.13\n')
    tmp_path.joinpath('timm').mkdir()
    tmp_path.joinpath('timm', '__init__.py').write_text('raise RuntimeError("imported too early")')
    program = f'import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import nepa_mm'
    result = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr.count('Error:') == 1, result.stderr
    assert result.stderr.splitlines()[-4:] == [
        f'ImportError: nepa_mm cannot work with what is installed for {sys.executable}:',
        '  - timm 0.6.13 is too old: 1.0.26 or newer is needed',
        'To fix it, run in the folder that holds setup.py of nepa_mm:',
        '    pip install -U "timm>=1.0.26"',
    ]

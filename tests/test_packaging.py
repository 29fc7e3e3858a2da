"""What a wheel, an sdist and an editable installation hold, and the files that describe them."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import modelindex
import pytest
import yaml
from mmengine.config import Config

import nepa_mm.version
from nepa_mm.stack import HOSTS, TIMM_FLOOR

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('nepa_mm', 'configs', 'tools', 'requirements', 'model-index.yml', 'setup.py')
SOURCES += ('pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md')


def run(*command: str, cwd: Path) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(kind: str, tree: Path, target: Path) -> Path:
    """Let setuptools build a 'wheel', an 'sdist' or an 'editable' from a tree."""
    target.mkdir()
    call = f'from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})'
    run(sys.executable, '-c', call, cwd=tree)
    (built,) = target.iterdir()
    return built


def pip_wheel(source: Path, target: Path) -> Path:
    """Build a wheel as a user does, from a folder or an sdist."""
    options = ['--no-deps', '--no-build-isolation', '--disable-pip-version-check', '-w']
    run(sys.executable, '-m', 'pip', 'wheel', str(source), *options, str(target), cwd=target.parent)
    (wheel,) = target.glob('*.whl')
    return wheel


@pytest.fixture
def tree(tmp_path):
    """A copy of what is packaged, with what an untidy working tree may hold besides."""
    copy = tmp_path / 'tree'
    copy.mkdir()
    ignore = shutil.ignore_patterns('.mim', '__pycache__')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, copy / name)
    (copy / 'tools' / '__pycache__').mkdir()
    (copy / 'tools' / '__pycache__' / 'train.pyc').write_bytes(b'')
    return copy


def assert_complete(wheel: Path, tree: Path) -> None:
    """The wheel holds every module, config and tool of the tree, each once, and no litter."""
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert 'nepa_mm/.mim/model-index.yml' in names
    assert 'nepa_mm/.mim/tools/train.py' in names
    assert 'nepa_mm/.mim/configs/_base_/default_runtime.py' in names
    expected = {str(path.relative_to(tree)) for path in (tree / 'nepa_mm').rglob('*.py')}
    expected = {name for name in expected if not name.startswith('nepa_mm/.mim/')}
    for folder in ('configs', 'tools'):
        for pattern in ('*.py', '*.sh', '*.yml'):
            paths = (tree / folder).rglob(pattern)
            expected |= {f'nepa_mm/.mim/{path.relative_to(tree)}' for path in paths}
    assert expected - set(names) == set()
    assert not [name for name in names if '__pycache__' in name or name.endswith('.pyc')]
    outside = [name for name in names if not name.startswith(('nepa_mm/', 'nepa_mm-'))]
    assert outside == []


def test_wheel_carries_mim_and_leaves_the_tree_alone(tree, tmp_path):
    assert_complete(pip_wheel(tree, tmp_path / 'wheel'), tree)
    assert not (tree / 'nepa_mm' / '.mim').exists()


def test_wheel_from_sdist_is_complete(tree, tmp_path):
    sdist = build('sdist', tree, tmp_path / 'sdist')
    assert sdist.name == f'nepa_mm-{nepa_mm.version.__version__}.tar.gz'
    assert_complete(pip_wheel(sdist, tmp_path / 'wheel'), tree)


def test_wheel_drops_what_was_deleted(tree, tmp_path):
    (tree / 'configs' / 'gone.py').write_text('')
    first = pip_wheel(tree, tmp_path / 'first')
    assert 'nepa_mm/.mim/configs/gone.py' in zipfile.ZipFile(first).namelist()
    (tree / 'configs' / 'gone.py').unlink()
    second = pip_wheel(tree, tmp_path / 'second')
    assert 'nepa_mm/.mim/configs/gone.py' not in zipfile.ZipFile(second).namelist()


def test_editable_links_and_does_not_leak_into_wheels(tree, tmp_path):
    mim = tree / 'nepa_mm' / '.mim'
    for attempt in ('once', 'again'):  # the second finds the links of the first
        build('editable', tree, tmp_path / attempt)
        assert sorted(path.name for path in mim.iterdir()) == [
            'configs',
            'model-index.yml',
            'tools',
        ]
        for name in ('configs', 'model-index.yml', 'tools'):
            assert (mim / name).is_symlink()
            assert (mim / name).resolve() == (tree / name).resolve()
    assert (tree / 'tools' / 'train.py').is_file()
    assert_complete(pip_wheel(build('sdist', tree, tmp_path / 'sdist'), tmp_path / 'wheel'), tree)
    assert_complete(pip_wheel(tree, tmp_path / 'direct'), tree)


def test_metadata_requires_neither_family(tree, tmp_path):
    wheel = zipfile.ZipFile(pip_wheel(tree, tmp_path / 'wheel'))
    (name,) = (name for name in wheel.namelist() if name.endswith('.dist-info/METADATA'))
    lines = wheel.read(name).decode().splitlines()
    requires = [line.removeprefix('Requires-Dist: ') for line in lines if 'Requires-Dist' in line]
    basics = [line for line in requires if 'extra ==' not in line]
    assert basics == ['filelock', 'huggingface_hub>=0.25', 'numpy', 'pillow', 'safetensors']
    openmm = [line.split(';')[0] for line in requires if line.endswith('extra == "openmm"')]
    assert openmm == [
        'torch>=2.6',
        'torchvision',
        f'timm>={TIMM_FLOOR}',
        'simplejpeg>=1.9',
        *(f'{host.onedl}>={host.onedl_floor}' for host in HOSTS),
    ]
    assert f'Version: {nepa_mm.version.__version__}' in lines
    assert 'License-Expression: Apache-2.0' in lines or 'License: Apache-2.0' in lines
    assert 'Requires-Python: >=3.10' in lines


def test_pins_are_exact_and_suit_the_floors():
    lines = (ROOT / 'requirements' / 'pinned.txt').read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith('#')]
    form = re.compile(r'[a-z0-9-]+==[0-9.]+(; python_version (>=|<) "3\.11")?')
    assert [pin for pin in pins if not form.fullmatch(pin)] == []
    for host in HOSTS:
        assert f'{host.onedl}=={host.onedl_floor}' in pins


def test_model_index_and_metafiles_agree():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    metafiles = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/metafile.yml'))
    assert sorted(index) == metafiles
    for metafile in metafiles:
        content = yaml.safe_load((ROOT / metafile).read_text())
        collections = {collection['Name'] for collection in content.get('Collections', [])}
        for model in content['Models']:
            assert (ROOT / model['Config']).is_file(), model['Config']
            assert model['In Collection'] in collections


def test_every_recipe_is_listed_once():
    """With a link in its folder's README, and once in the metafile, if there is one, but for templates."""
    folders = [path.parent for path in sorted(ROOT.glob('configs/*/README.md'))]
    assert {folder.name for folder in folders} >= {'pretrain', 'classification', 'segmentation', 'ablation'}
    for folder in folders:
        leafs = sorted(path.name for path in folder.glob('*.py'))
        links = re.findall(r'\]\(([^)/]+\.py)\)', (folder / 'README.md').read_text())
        assert sorted(set(links)) == leafs, folder.name
        if (folder / 'metafile.yml').is_file():
            models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
            assert sorted(model['Name'] + '.py' for model in models) == [n for n in leafs if 'my-dataset' not in n]
            assert all(model['Config'] == f'configs/{folder.name}/{model["Name"]}.py' for model in models)


def test_metafiles_tell_what_the_configs_say():
    for metafile in ROOT.glob('configs/**/metafile.yml'):
        for model in yaml.safe_load(metafile.read_text())['Models']:
            cfg = Config.fromfile(ROOT / model['Config'])
            told = model['Metadata']
            assert told['Batch Size'] == cfg.auto_scale_lr.base_batch_size, model['Name']
            assert told.get('Epochs') == cfg.train_cfg.get('max_epochs'), model['Name']
            assert told.get('Iterations') == cfg.train_cfg.get('max_iters'), model['Name']


def test_the_model_index_builds():
    """As mmpretrain's model hub reads it."""
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    names = [model.name for model in index.models]
    assert len(names) == len({name.lower() for name in names})
    weights = {model.name: model.weights for model in index.models if model.weights}
    assert set(weights) >= {
        'nepa_base-p14_8xb512-bf16-coslr-1600e_in1k',
        'nepa_large-p14_8xb128-accum4-bf16-coslr-1600e_in1k',
        'nepa_base-p14_8xb128-bf16-coslr-100e_in1k',
        'nepa_large-p14_8xb128-bf16-coslr-100e_in1k',
    }
    form = re.compile(
        r'https://huggingface\.co/SixAILab/nepa-(base|large)-patch14-224(-sft)?/resolve/main/model\.safetensors'
    )
    for name, url in weights.items():
        assert form.fullmatch(url), url
        assert ('large' in name, 'classification' in index_path(index, name)) == ('large' in url, '-sft/' in url)


def index_path(index, name: str) -> str:
    return next(model.config for model in index.models if model.name == name)


def test_citation_and_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == nepa_mm.version.__version__
    assert citation['preferred-citation']['identifiers'][0]['value'] == 'arXiv:2512.16922'
    assert f'## [{nepa_mm.version.__version__}]' in (ROOT / 'CHANGELOG.md').read_text()

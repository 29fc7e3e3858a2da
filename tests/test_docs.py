"""Every command in the README and the docs runs, as it stands there, on tiny data and with shrunk configs."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from nepa_mm.benchmark import step
from nepa_mm.datasets import HuggingFaceImageDataset
from tests.archives import make_archives
from tests.layouts import make_hugging_face
from tests.releases import make_releases
from tests.test_checkpoints.servers import hub, serve
from tests.test_configs import ROOT, STEPS, data, save_what_it_starts_from, shrink  # noqa: F401  (data is a fixture)

DOCS = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md')), *sorted((ROOT / 'configs').rglob('*.md'))]
# Run by CI itself on a fresh clone, or by a test of their own.
ELSEWHERE = {
    'make demo': 'tests/test_tools/test_demo.py',
    'make demo DEMO_ARGS="--seed 1 --work-dir work_dirs/demo_seed1"': 'tests/test_tools/test_demo.py',
    'make test': 'this very run',
    'make gpu-check': 'needs a GPU; tests/test_benchmark/test_gpu_check.py runs its parts',
    'pip install -e .[openmm]': 'the Makefile installs the same, pinned; tests/test_packaging.py builds the package',
}

# Commands in the text that are not run either.
IN_THE_TEXT = {
    'source .venv/bin/activate': 'a shell is to keep what it sets',
    'hf auth login': 'asks for a token, and for the hub itself',
    'make install': 'made what this runs in',
    'make test-all': 'would run this again',
    'pip install -e .': 'as with [openmm], above',
    'pip install datasets': 'installed here, by the pins',
    'pip uninstall -y opencv-python': 'would change what this runs in',
    'pip install --force-reinstall --no-deps opencv-python-headless': 'would change what this runs in',
    'torchrun --max-restarts': 'names the option; tests/test_tools/test_clusters.py runs it',
}
# What stands for something of the reader's, so that the command cannot be run as it is.
PLACEHOLDER = re.compile(r'\b(?:CONFIG|CHECKPOINT|NAME|MAX_RESTARTS=N)\b|\.\.\.')
PROGRAMS = 'bash|hf|make|pip|python|sbatch|source|srun|torchrun'

# Leafs whose checkpoints docs/inference.md predicts with, and docs/probing.md probes.
PREDICTORS = (
    'nepa_d192l6-p8_1xb16-bf16-coslr-1000it_demo-scenes-64x64',
    'nepa_base-p14_8xb128-bf16-coslr-100e_in1k',
    'nepa_base-p14_8xb512-bf16-coslr-1600e_in1k',
    'nepa_small-p14_1xb256-bf16-coslr-300e_image-folder',
    'nepa_small-p14_upernet_1xb8-bf16-40k_my-dataset-518x518',
)


def commands() -> list[str]:
    found = []
    for path in DOCS:
        for block in re.findall(r'```bash\n(.*?)```', path.read_text(), re.DOTALL):
            lines = block.replace('\\\n', ' ').splitlines()
            found += [' '.join(line.split('  #')[0].split()) for line in lines if line and not line.startswith('#')]
    return found


def commands_elsewhere() -> list[str]:
    """Commands in the text of a page, or in blocks that are not said to be commands."""
    found = []
    for path in DOCS:
        text = path.read_text()
        for language, block in re.findall(r'^```(\w*)\n(.*?)^```', text, re.DOTALL | re.MULTILINE):
            if language != 'bash':
                found += re.findall(rf'^(?:{PROGRAMS}) .*', block, re.MULTILINE)
        text = re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
        found += re.findall(rf'(?<!`)`((?:\w+=\S+ )*(?:{PROGRAMS}) [^`]*)`', text)
    return [' '.join(command.split()) for command in found]


def snippets() -> list[str]:
    """The Python that is to be run; that of other pages is parts of configs."""
    return re.findall(r'```python\n(.*?)```', (ROOT / 'docs/inference.md').read_text(), re.DOTALL)


def test_the_paths_that_the_docs_name_exist():
    for path in DOCS:
        text = path.read_text()
        for link in re.findall(r'\]\((?!http)([^)#]+)', text):
            assert (path.parent / link).exists(), f'{path.name} links to {link}'
        for name in re.findall(r'`((?:configs|tools|tests|docs|nepa_mm)/[\w./-]+\.\w+)`', text):
            assert (ROOT / name).exists(), f'{path.name} names {name}'
        for name in re.findall(r'`(nepa[\w-]*_[\w-]+-bf16-[\w-]+)`', text):
            assert list(ROOT.glob(f'configs/*/{name}.py')), f'{path.name}: {name} names no recipe'


def test_python_of_the_docs_is_python():
    for path in DOCS:
        for block in re.findall(r'```python\n(.*?)```', path.read_text(), re.DOTALL):
            compile(block, str(path), 'exec')


def test_no_command_is_left_out_unsaid():
    """One that is not in a block of commands stands in one too, or has a blank to fill in, or a reason here."""
    left_out = [c for c in commands_elsewhere() if c not in commands() and not PLACEHOLDER.search(c)]
    assert set(left_out) == set(IN_THE_TEXT)


def test_make_targets_of_the_docs_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for command in commands():
        if command.startswith('make '):
            assert re.search(rf'^{command.split()[1]}:', makefile, re.MULTILINE), command


def write_configs(folder: Path) -> None:
    """Shrunk configs, and what they start from."""
    for path in (ROOT / 'configs').rglob('*.py'):
        if '_base_' in path.parts or ('demo' in path.parts and path.stem not in PREDICTORS):
            continue
        cfg = Config.fromfile(path)
        shrink(cfg)
        if cfg.model.backbone.get('init_cfg'):
            save_what_it_starts_from(cfg.model.backbone, folder)
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(target)
        if path.stem in PREDICTORS:
            # The demo names its runs after its stages.
            run = 'demo/pretrain' if path.parent.name == 'demo' else path.stem
            save_what_training_left(cfg, folder / 'work_dirs' / run / f'iter_{STEPS}.pth')


def save_what_training_left(cfg: Config, path: Path) -> None:
    """A checkpoint of random weights, for a page that predicts with a model and does not train it."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        weights = MODELS.build(cfg.model).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=weights, meta={}), path)


@pytest.fixture(scope='module')
def clone(data):  # noqa: F811
    """A folder that looks like a clone, with tiny data, and configs/ shrunk in place."""
    with pytest.MonkeyPatch.context() as patch:
        # Making the text of the configs pretty would take longer than all the rest.
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **kwargs: (text, True))
        write_configs(data)
    for name in ('tools', 'nepa_mm'):
        (data / name).symlink_to(ROOT / name)
    make_archives(data)
    make_releases(data)
    return data


@pytest.fixture(scope='module')
def hub_url(clone):
    """The Hugging Face hub, played by a server of this machine that has the made releases."""
    repositories = {
        f'SixAILab/{folder.name}': {'main': {file.name: file.read_bytes() for file in folder.iterdir()}}
        for folder in (clone / 'released').iterdir()
    }
    with serve(hub(repositories)) as server:
        yield server.url


def run(command: str, clone: Path, **settings: str) -> str:
    words = shlex.split(command)
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(clone), HF_HOME=str(clone / 'hub'), **settings)
    while '=' in words[0]:
        name, value = words.pop(0).split('=')
        environment[name] = value
    environment['PATH'] = f'{clone / "bin"}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{(done.stdout + done.stderr)[-3000:]}'
    return done.stdout + done.stderr


def shrunk(command: str) -> str:
    """One or two processes where the command asks for eight; checkpoints of the few steps that the configs take."""
    command = re.sub(r'(dist_train\.sh \S+) [48]\b', r'\1 1', command).replace('NNODES=2', 'NNODES=1')
    command = command.replace('MASTER_ADDR=node0', 'MASTER_ADDR=127.0.0.1')
    command = command.replace('frozen_stages=12', 'frozen_stages=4')  # all layers, of which four are left
    small = '--threads 1 --arch small --img-size 28 --batch-size 2 --iters 1 --small-iters 2 --past 10 --starts 1'
    command = command.replace('benchmark.py loop', f'benchmark.py loop {small}')
    small = '--arch tiny --num-layers 1 --img-size 28 --batch-size 1'
    command = command.replace('benchmark.py step', f'benchmark.py step {small} --rounds 1')
    command = command.replace('benchmark.py memory', f'benchmark.py memory {small} --dtype fp32')
    command = command.replace('benchmark.py tokens', 'benchmark.py tokens --sides 4 8 --num-layers 1 --rounds 1')
    small = '--images 2 --rounds 1 --warmup 0 --size 80 60 --crop 32 --seg-crop 32'
    command = command.replace('benchmark.py data', f'benchmark.py data {small}')
    small = '--num-layers 1 --img-size 16 --images 48 --classes 2 --epochs 2 --batch-size 16 --rounds 1'
    command = command.replace('benchmark.py probing', f'benchmark.py probing {small}')
    # The data folders are there already, and the archives hold a few files.
    command = re.sub(r'(imagenet_subset.*data/imagenet/meta)$', r'\1_again --percent 50 100', command)
    command = re.sub(r'(dataset_converters/.* )(data/\w+|data/\w+/\w+)$', r'\1\2_again --any-count', command)
    command = re.sub(r'(hf download .* released)/', r'\1_again/', command)
    return re.sub(r'(iter|epoch)_\d+\.pth', f'iter_{STEPS}.pth', command)


# Need a GPU. On the CPU they would be `benchmark.py step`, which is run; of these the options are read.
ON_A_GPU = [c for c in dict.fromkeys(commands()) if '--device cuda' in c]
RUNNABLE = [c for c in dict.fromkeys(commands()) if c not in ELSEWHERE and c not in ON_A_GPU]


def test_there_is_something_to_run():
    assert len(RUNNABLE) >= 6
    assert set(ELSEWHERE) <= set(commands())
    assert len(ON_A_GPU) == 2


@pytest.mark.parametrize('command', RUNNABLE)
def test_command(command, clone, hub_url):
    if 'slurm' in command:
        stand_in = clone / 'bin' / 'srun'
        stand_in.parent.mkdir(exist_ok=True)
        # What srun would do for one task: drop its own options, set its variables, run the rest.
        stand_in.write_text(
            '#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do shift; done\n'
            'export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29533\nexec "$@"\n'
        )
        stand_in.chmod(0o755)
        batch = stand_in.with_name('sbatch')
        batch.write_text('#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do shift; done\nSLURM_JOB_ID=1 exec bash "$@"\n')
        batch.chmod(0o755)
    out = run(shrunk(command), clone, HF_ENDPOINT=hub_url)
    if re.search(r'tools/\w*train\.', command):
        assert 'global batch' in out
        # The shrunk run has few steps; `--resume` finds it done by the command before.
        assert re.search(rf'Iter\(train\) *\[ *{STEPS}/{STEPS}\]|resumed epoch: \d+, iter: {STEPS}', out)
    if 'test.py' in command:
        assert re.search(r'(mIoU|accuracy/top1): +\d', out)
    if 'hf download' in command:
        folder = Path(command.split()[-1])
        got = clone / f'{folder.parent}_again' / folder.name
        for file in (clone / folder).iterdir():
            assert (got / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize('command', ON_A_GPU)
def test_options_of_a_command_for_the_gpu(command):
    python, tool, subcommand, *options = shlex.split(command)
    assert (python, tool, subcommand) == ('python', 'tools/analysis/benchmark.py', 'step')
    parser = argparse.ArgumentParser(exit_on_error=False)
    step.add_arguments(parser)
    args = parser.parse_args(options)
    assert (args.device, args.compile, args.dtype, args.timm) == ('cuda', True, 'bf16', False)
    # As the page says: the batch from which on the targets are meant.
    assert args.batch_size == step.GPU_TARGETS[args.arch, args.mlp].batch


def test_python(clone):
    """The Python of docs/inference.md, all in one process: importing takes longer than predicting."""
    assert len(snippets()) == 4
    (clone / 'snippets.py').write_text(shrunk('\n'.join(snippets())))
    run('python snippets.py', clone)


def test_hugging_face_s_parquet_files_are_saved(clone):
    """The Python of docs/datasets.md that prepares ImageNet, on parquet files of a few images."""
    make_hugging_face(clone / 'downloads/imagenet-1k', parquet=True)
    (snippet,) = re.findall(r'```python\n(import datasets\n.*?)```', (ROOT / 'docs/datasets.md').read_text(), re.DOTALL)
    (clone / 'prepare.py').write_text(snippet.replace('data/imagenet_hf', 'data/imagenet_hf_again'))
    run('python prepare.py', clone, HF_HUB_OFFLINE='1')
    for split in ('train', 'validation'):
        made, told = (
            [images[i] for i in range(len(images))]
            for images in (
                HuggingFaceImageDataset(data_root=str(clone / 'data' / name), split=split)
                for name in ('imagenet_hf_again', 'imagenet_hf')
            )
        )
        assert len(made) == 4
        assert [(x['img_bytes'], x['gt_label']) for x in made] == [(x['img_bytes'], x['gt_label']) for x in told]

"""What single pages of the documentation say: messages, recipe tables and example configs are those of the code."""

import ast
import re
from functools import cache

import pytest
from mmengine.config import Config

from tests.test_configs import LEAFS, ROOT


def _page(name: str) -> str:
    return (ROOT / 'docs' / name).read_text()


def _python(name: str, number: int = 0) -> str:
    return re.findall(r'```python\n(.*?)```', _page(name), re.DOTALL)[number]


# ------------------------------------------------------------------ troubleshooting.md

# An entry starts, in bold, with the words of a message, `...` for what varies.
PARAGRAPHS = [' '.join(text.split()) for text in _page('troubleshooting.md').split('\n\n')]
LEADS = [match[1] for text in PARAGRAPHS if (match := re.match(r'\*\*(`.*?`)\*\*', text))]
QUOTED = [message.strip('` ') for lead in LEADS for message in re.split(r'(?<=`), (?=`)', lead)]
# Given by Python, torch or a host; each has been seen with this stack.
OTHERS = (
    'ImportError: libGL.so.1',
    'Could not import OneDL',
    'Fail to import',
    '"HardDiskBackend"',
    'NEPAViT is not in the mmseg::model registry',
    'mmsegmentation is not installed',
    'Expected more than 1 value',
    'Target ... is out of bounds',
    'Expected to have finished reduction',
    'Default ``avg_non_ignore``',
    'bits must be between',
    'Gloo connectFullMesh failed',
    'OSError: [Errno 5]',
)


@cache
def texts() -> list[str]:
    """Every string of the package, with a gap where an f-string puts a value."""
    found = []
    for path in (ROOT / 'nepa_mm').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            pieces = [
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else '' for part in parts
            ]
            if pieces != ['']:
                found.append(''.join(pieces))
    return found


def test_there_are_messages():
    assert len(QUOTED) > 25
    assert all(any(message.startswith(other) for message in QUOTED) for other in OTHERS)


@pytest.mark.parametrize('message', [m for m in QUOTED if not m.startswith(OTHERS)])
def test_the_code_says_so(message):
    words = [re.escape(part.strip()) for part in message.split('...') if part.strip()]
    pattern = re.compile('.*'.join(words), re.DOTALL)
    assert any(pattern.search(text) for text in texts()), message


# ------------------------------------------------------------------ reproduce.md

PATHS = {path.stem: path for path in LEAFS}
NAME = re.compile(r'`(nepa[\w-]*_(?:base|large)[\w-]+)`')


def _rows() -> list[tuple[str, str]]:
    """Pretraining and fine-tuning of each table row that names a fine-tuning; 'the same' is that of the row above."""
    found: list[tuple[str, str]] = []
    for line in _page('reproduce.md').splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if len(cells) not in (5, 6) or not NAME.search(cells[-2]):
            continue
        start = found[-1][0] if cells[-3] == 'the same' else NAME.search(cells[-3])[1]
        found.append((start, NAME.search(cells[-2])[1]))
    return found


def test_every_leaf_that_is_named_exists():
    names = set(NAME.findall(_page('reproduce.md')))
    assert len(names) > 30
    assert not names - set(PATHS)


def test_every_ablation_is_named():
    assert {p.stem for p in LEAFS if p.parent.name == 'ablation'} <= set(NAME.findall(_page('reproduce.md')))


@pytest.mark.parametrize(('start', 'leaf'), _rows())
def test_a_row_starts_from_its_own_pretraining(start, leaf):
    checkpoint = Config.fromfile(PATHS[leaf]).model.backbone.init_cfg.checkpoint
    assert checkpoint.split('/')[-2] == start


# ------------------------------------------------------------------ example configs


def test_the_pretraining_of_ones_own(tmp_path):
    text = _python('pretrain_your_images.md').replace("_base_ = './", f"_base_ = '{ROOT / 'configs' / 'pretrain'}/")
    (tmp_path / 'own.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'own.py')
    accumulation = cfg.optim_wrapper.accumulative_counts
    assert cfg.train_dataloader.batch_size * accumulation == cfg.auto_scale_lr.base_batch_size == 512
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(6e-4)
    assert cfg.optim_wrapper.constructor == 'BackboneLayerDecayConstructor'  # inherited
    assert cfg.param_scheduler[0].end == cfg.train_cfg.max_epochs == 200
    assert cfg.custom_hooks[0].interval == accumulation


def test_the_augmentation_of_the_release():
    example: dict = {}
    exec(_python('augmentation.md'), example)
    leaf = Config.fromfile(PATHS['nepa_base-p14_8xb128-bf16-coslr-100e_in1k'])
    assert leaf.train_dataloader.dataset.pipeline == example['train_pipeline']
    ours, shown = leaf.model.train_cfg.augments, example['model']['train_cfg']['augments']
    assert {**ours, **shown} == ours  # the leaf also spells out defaults

"""Few-shot lists: balanced, nested, the same wherever they are drawn, and in the form that mmpretrain reads."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from mmpretrain.registry import DATASETS

from nepa_mm.datasets.preparation import PreparationError
from tests.archives import picture, write_folder

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'dataset_converters' / 'imagenet_subset.py'
spec = importlib.util.spec_from_file_location('tool_imagenet_subset', TOOL)
subset = importlib.util.module_from_spec(spec)
spec.loader.exec_module(subset)

CLASSES = {'n02': [f'n02_{i}.JPEG' for i in range(100)], 'n01': [f'n01_{i}.JPEG' for i in range(60)]}
CLASSES['n10'] = [f'deep/{i}.png' for i in range(37)]


def per_class(lines):
    return dict(Counter(line.split('/')[0] for line in lines))


def test_balanced_and_nested():
    """197 images: 10 percent are 20, so 7 + 7 + 6; 50 percent are 98 (to even), of which n10 can give but 37."""
    ten, fifty, all_of_them = (subset.draw(CLASSES, percent, 0) for percent in (10, 50, 100))
    assert len(ten) == 20 and sorted(per_class(ten).values()) == [6, 7, 7]
    assert len(fifty) == 98 and sorted(per_class(fifty).values()) == [32, 33, 33]
    assert per_class(subset.draw(CLASSES, 80, 0)) == {'n01': 60, 'n02': 61, 'n10': 37}
    assert set(ten) < set(fifty) < set(all_of_them) and len(all_of_them) == 197
    assert ten == sorted(ten) and len(set(ten)) == 20
    for line in all_of_them:
        path, index = line.rsplit(' ', 1)
        assert int(index) == ['n01', 'n02', 'n10'].index(path.split('/')[0])


def test_imagenets_own_numbers():
    sizes = {f'n{i:08d}': 1281 if i < 833 else 1282 for i in range(1000)}
    sizes['n00000000'] -= sum(sizes.values()) - 1281167
    for total, counts in ((12812, {12: 188, 13: 812}), (128117, {128: 883, 129: 117})):
        assert round(1281167 * (0.01 if total < 20000 else 0.1)) == total
        assert Counter(subset.share_out(sizes, total, 0).values()) == counts


def test_depends_on_names_and_seed_only():
    lines = subset.draw(CLASSES, 10, 0)
    assert subset.draw({k: v[::-1] for k, v in reversed(CLASSES.items())}, 10, 0) == lines
    assert subset.draw(CLASSES, 10, 1) != lines
    # Drawn on another day, on another machine.
    assert [line for line in lines if line.startswith('n10')] == [
        f'n10/deep/{i}.png 2' for i in (11, 14, 18, 20, 30, 32, 34)
    ]


def test_command_line(tmp_path, capsys):
    files = {f'train/{name}/{file}': picture(1, (8, 8)) for name, own in CLASSES.items() for file in own[:30]}
    write_folder(tmp_path, files | {'train/n01/notes.txt': b'', 'train/list.txt': b''})
    arguments = [str(tmp_path / 'train'), str(tmp_path / 'meta'), '--percent', '10', '33.3']
    assert subset.main(arguments) == 0
    assert 'train_10percent.txt: 9 images of 3 classes, seed 0' in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / 'meta').iterdir()) == ['train_10percent.txt', 'train_33.3percent.txt']

    dataset = DATASETS.build(
        dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train', ann_file='meta/train_10percent.txt')
    )
    assert Counter(dataset.get_gt_labels().tolist()) == {0: 3, 1: 3, 2: 3}
    assert all(Path(dataset.get_data_info(i)['img_path']).is_file() for i in range(9))


def test_says_what_is_wrong(tmp_path, capsys):
    out = str(tmp_path / 'meta')
    assert subset.main([str(tmp_path / 'none'), out]) == 1
    assert 'is not a folder' in capsys.readouterr().err
    (tmp_path / 'train').mkdir()
    assert subset.main([str(tmp_path / 'train'), out]) == 1
    assert 'holds no folders' in capsys.readouterr().err
    (tmp_path / 'train' / 'n01').mkdir()
    assert subset.main([str(tmp_path / 'train'), out]) == 1
    assert 'no images in n01' in capsys.readouterr().err
    with pytest.raises(PreparationError, match='1 percent are 2 images, fewer than the 3 classes'):
        subset.draw(CLASSES, 1, 0)
    with pytest.raises(SystemExit):
        subset.main([str(tmp_path), out, '--percent', '0'])
    assert not Path(out).exists()

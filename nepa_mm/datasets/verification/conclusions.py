"""What the counts mean: the faults that train in silence, and the line of the config to change."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from ..preparation import name_some
from .configs import Heads, Part, read_heads
from .folders import look_at_folders
from .report import Finding, Loader
from .samples import INVALID, LabelRule, list_sample

# Kind of a sample's problem: what it means, what to do.
FILES = {
    'image': ('images cannot be read', 'mend or remove the files in the list'),
    'missing': ('label maps are missing', 'add them, or remove their images; check data_prefix and the suffixes'),
    'label': ('label maps cannot be read', 'mend or remove the files in the list'),
    'size': ('label maps have another size than their image', 'pair the right files, or make the maps anew'),
    'exif': (
        'images carry an EXIF rotation, which turns them away from their label maps',
        'save them upright, without the tag',
    ),
    'depth': ('label maps have values beyond 8 bits', 'store class numbers from 0 to 255 as 8-bit PNG'),
    'grey': (
        'label maps are saved as RGB with three equal channels',
        "save them with one channel: PIL.Image.open(file).convert('L')",
    ),
}


def conclude(loaders: list[Loader], cfg: Mapping) -> dict[str, list[Finding]]:
    """Tell what is wrong with the data sets of a config.

    Args:
        loaders: From :func:`verify`.
        cfg: The config.

    Returns:
        Per loader, its findings; under 'model', those of the config alone.
    """
    heads = read_heads(cfg)
    found: dict[str, list[Finding]] = {'model': _about_heads(loaders, heads)}
    for loader in loaders:
        findings = [
            Finding(f'{part.key} {part.error}', f'{part.key}: data_root, data_prefix, suffixes, ann_file, metainfo')
            for part in loader.parts
            if part.dataset is None
        ]
        for kind, (text, change) in FILES.items():
            if loader.kinds[kind]:
                findings.append(Finding(f'{loader.kinds[kind]:,} {text}', change))
        findings += _about_colors(loader)
        rule = next((part.rule for part in loader.parts if part.rule is not None), None)
        key = next((part.key for part in loader.parts if part.rule is not None), '')
        if rule is not None and loader.counts.any():
            findings += _about_values(loader, rule, key)
        elif loader.classes_seen:
            findings += _about_labels(loader)
        findings += [finding for part in loader.parts for finding in look_at_folders(part)]
        found[loader.name] = findings
    for first, second in combinations(loaders, 2):
        found[second.name] += _about_both(first, second)
    return found


def _about_heads(loaders: list[Loader], heads: Heads) -> list[Finding]:
    """The model against the data sets' lists of classes."""
    findings = []
    parts = [part for loader in loaders for part in loader.parts if part.classes and _labelled(part)]
    for key, number in heads.num_classes.items():
        for count in sorted({len(part.classes) for part in parts} - {number, heads.label_classes[key]}):
            where = next(part.key for part in parts if len(part.classes) == count)
            findings.append(
                Finding(f'{key} is {number}, but {where} has {count} classes', f'{key} = {count}, or metainfo.classes')
            )
    segmentation = any(part.rule is not None for part in parts)
    for key, ignored in heads.ignore_index.items() if segmentation else ():
        classes = parts[0].classes
        if 0 <= ignored < len(classes):
            findings.append(
                Finding(
                    f'{key} is {ignored}, also the class {classes[ignored]!r}: it is never learnt nor measured',
                    f'{key} = 255, and 255 in the label maps where nothing is labelled',
                )
            )
        if ignored != 255 and any(part.rule is not None and part.rule.reduce_zero_label for part in parts):
            findings.append(Finding(f'reduce_zero_label makes 0 to 255, but {key} is {ignored}', f'{key} = 255'))
    return findings


def _labelled(part: Part) -> bool:
    return part.rule is not None or 'gt_label' in list_sample(part.dataset, 0)


def _about_colors(loader: Loader) -> list[Finding]:
    findings = []
    if loader.kinds['colors']:
        palette = {
            tuple(color)
            for part in loader.parts
            if part.dataset is not None
            for color in part.dataset.metainfo.get('palette') or ()
        }
        known = (
            'all of them in the palette of the data set: number k for the k-th colour'
            if loader.colors <= palette
            else ', '.join(map(str, sorted(loader.colors)[:5])) + (', ...' if len(loader.colors) > 5 else '')
        )
        findings.append(
            Finding(
                f'{loader.kinds["colors"]:,} label maps are coloured pictures, {len(loader.colors)} colours ({known})',
                'write the class numbers as 8-bit single-channel PNG, one number per colour',
            )
        )
    if loader.kinds['palette']:
        findings.append(
            Finding(
                f'{loader.kinds["palette"]:,} label maps are palette images, which the config reads as colours',
                f"{loader.name}: LoadAnnotations(imdecode_backend='pillow'), its default",
            )
        )
    return findings


def _about_values(loader: Loader, rule: LabelRule, key: str) -> list[Finding]:
    """The stored values of all label maps together against the classes."""
    findings = []
    classes = next(part.classes for part in loader.parts if part.rule is rule)
    count = len(classes)
    values = np.flatnonzero(loader.counts).tolist()
    strange = [value for value in values if rule.roles[value] == INVALID]
    absent = [i for i in range(count) if not loader.classes_seen[i]]
    some_seen = len(absent) < count
    reduce = f'{key}.reduce_zero_label'
    shifted = ''
    if not rule.reduce_zero_label and strange == [count]:
        shifted = f'labels run to {count}, but {count} classes are numbered 0 to {count - 1}: ' + (
            f'they seem to start at 1, with 0 for no label; with {reduce}=False class k trains as class k + 1'
            if 0 in values
            else f'they start at 1; with {reduce}=False class k trains as class k + 1'
        )
        change = f'{reduce} = True' + (
            f'; or, if 0 is a class of its own, name it in metainfo.classes and set num_classes={count + 1}'
            if 0 in values
            else ''
        )
    elif rule.reduce_zero_label and 0 in values and count - 1 in absent and some_seen and not strange:
        shifted = (
            f'labels run from 0 to {max(v for v in values if rule.roles[v] >= 0 or v == 0)}, but {reduce}=True expects '
            f'them from 1 to {count}: if 0 is the class {classes[0]!r}, it is ignored and all others shift by one'
        )
        change = f'{reduce} = False (if 0 means no label, only the class {classes[-1]!r} is missing)'
    elif not rule.reduce_zero_label and 0 in absent and some_seen and not strange:
        shifted = f'0 never occurs: if labels start at 1, class k trains as class k + 1, with {reduce}=False'
        change = f'{reduce} = True (if they start at 0, only the class {classes[0]!r} is missing)'
    if shifted:
        findings.append(Finding(shifted, change, error=bool(strange) or loader.name == 'train_dataloader'))
    elif strange:
        findings.append(_about_strange(values, strange, loader, rule, count))
    if absent and some_seen:
        names = name_some([f'{classes[i]} ({i})' for i in absent])
        binary = (
            '; 255 stands where the second class should: it is the ignored value'
            if set(values) == {0, 255} and count == 2
            else ''
        )
        findings.append(
            Finding(
                f'{len(absent)} of {count} classes never occur: {names}{binary}',
                'store 1 instead of 255' if binary else 'the label maps, or metainfo.classes and num_classes',
                error=loader.name == 'train_dataloader',
            )
        )
    if loader.all_ignored:
        findings.append(
            Finding(
                f'{loader.all_ignored:,} of {loader.samples:,} label maps have no pixel of any class: their images '
                'teach nothing',
                f'remove them, or see what their values mean ({reduce}, ignore_index)',
                error=loader.all_ignored == loader.samples,
            )
        )
    return findings


def _about_strange(values: list[int], strange: list[int], loader: Loader, rule: LabelRule, count: int) -> Finding:
    text = (
        f'{loader.kinds["range"]:,} label maps hold values that are no class: {", ".join(map(str, strange[:10]))}'
        + (f' and {len(strange) - 10} more' if len(strange) > 10 else '')
        + f' ({count} classes, {"1" if rule.reduce_zero_label else "0"} to '
        f'{count if rule.reduce_zero_label else count - 1}; ignored: {rule.ignore_index})'
    )
    if len(values) <= count + 1:
        # As many values as classes, but far apart.
        listed = ', '.join(map(str, values[:10])) + (', ...' if len(values) > 10 else '')
        return Finding(
            f'{text}; only {len(values)} values occur ({listed}): they look like the grey levels of a coloured picture',
            'write the class numbers 0, 1, 2, ... instead of grey levels',
        )
    return Finding(text, 'the label maps, metainfo.classes, or 255 for what is to be ignored')


def _about_labels(loader: Loader) -> list[Finding]:
    """Classes of whole images."""
    findings: list[Finding] = []
    classes = next((part.classes for part in loader.parts if part.classes), ())
    if not classes:
        return findings
    strange = sorted(label for label in loader.classes_seen if not 0 <= label < len(classes))
    if strange:
        findings.append(
            Finding(
                f'class {", ".join(map(str, strange[:10]))} occurs, but {len(classes)} classes are numbered 0 to '
                f'{len(classes) - 1}',
                'the annotation file, or metainfo.classes and num_classes',
            )
        )
    absent = [name for i, name in enumerate(classes) if not loader.classes_seen[i]]
    if absent:
        findings.append(
            Finding(
                f'{len(absent)} of {len(classes)} classes have no image: {name_some(absent)}',
                'the folders, the annotation file, or metainfo.classes',
                error=loader.name == 'train_dataloader',
            )
        )
    return findings


def _about_both(first: Loader, second: Loader) -> list[Finding]:
    """Two loaders against each other."""
    findings = []
    lists = [next((part.classes for part in loader.parts if part.classes), ()) for loader in (first, second)]
    if all(lists) and lists[0] != lists[1]:
        differing = name_some(set(lists[0]) ^ set(lists[1])) or 'their order'
        findings.append(
            Finding(
                f'its classes are not those of {first.name} ({differing}): the same number means another class',
                'the class folders (one per class in both, even if empty), or metainfo.classes',
            )
        )
    if shared := first.paths & second.paths:
        findings.append(
            Finding(
                f'{len(shared):,} images are in {first.name} as well: {name_some(shared)}',
                'the lists or folders of the splits',
                error=False,
            )
        )
    return findings

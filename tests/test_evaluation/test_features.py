"""Features of all layers in one pass, and their cache."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn

from nepa_mm.evaluation import (
    FeatureCache,
    ProbeError,
    check_layers,
    check_linear_probe,
    check_same_classes,
    extract_features,
    hash_samples,
    hash_weights,
    layer_name,
    pool_tokens,
    probe_loader,
    probing,
)
from nepa_mm.models import NEPAViT

DEPTH, WIDTH = 3, 16
ARCH = dict(embed_dims=WIDTH, num_layers=DEPTH, num_heads=2, feedforward_channels=32)


class Images(torch.utils.data.Dataset):
    """Ten images of 12 x 8 with labels."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, label=lambda i: i % 2):
        self.images = torch.randint(0, 256, (10, 3, 12, 8), generator=torch.Generator().manual_seed(0)).byte()
        self.label = label

    def __len__(self):
        return len(self.images)

    def get_data_info(self, i):
        return dict(img_path=f'{i}.png', gt_label=i % 2, sample_idx=i)

    def __getitem__(self, i):
        return dict(inputs=self.images[i], data_samples=DataSample().set_gt_label(self.label(i)))


def vit(**kwargs):
    return NEPAViT(arch=ARCH, patch_size=4, layer_scale_init=0.5, **kwargs)


def preprocessor():
    return ClsDataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)


def extract(backbone, items, dataset=None, dtype='float32', batch_size=4, **kwargs):
    dataset = dataset or Images()
    out = {item: np.full((len(dataset), WIDTH), np.nan, dtype) for item in items}
    with probing(backbone):
        labels = extract_features(backbone, preprocessor(), probe_loader(dataset, batch_size, 0), items, out, **kwargs)
    return out, labels


@pytest.mark.parametrize('causal', [False, True])
def test_equal_the_backbones_own_outputs_of_each_layer(causal):
    backbone = vit(causal=causal)
    items = [(layer, pooling) for layer in range(DEPTH) for pooling in ('avg', 'last')]
    out, labels = extract(backbone, items)
    assert labels.tolist() == [0, 1] * 5

    weights = backbone.state_dict()
    images = preprocessor()(dict(inputs=Images().images))['inputs']
    for pooling, out_type in (('avg', 'avg_featmap'), ('last', 'last_token')):
        own = vit(causal=causal, out_indices=(0, 1, 2), out_type=out_type).eval()
        own.load_state_dict(weights)
        with torch.no_grad():
            for layer, expected in enumerate(own(images)):
                np.testing.assert_allclose(out[layer, pooling], expected.numpy(), atol=1e-5)


def test_poolings():
    tokens = torch.randn(2, 5, WIDTH)
    assert torch.equal(pool_tokens(tokens, 'bos'), tokens[:, 0])
    assert torch.equal(pool_tokens(tokens, 'last'), tokens[:, 4])
    torch.testing.assert_close(pool_tokens(tokens, 'avg'), tokens[:, 1:].sum(1) / 4)
    patches = tokens[:, 1:]
    normal = (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(pool_tokens(tokens, 'avg_norm'), normal.mean(1))
    with pytest.raises(ValueError, match=r"pooling \['max'\] is unknown; choose of \['avg', 'avg_norm'"):
        pool_tokens(tokens, 'max')


def test_embed_is_what_enters_the_layers():
    backbone = vit()
    out, _ = extract(backbone, [('embed', 'avg'), (1, 'bos')])
    images = preprocessor()(dict(inputs=Images().images))['inputs']
    patches = F.unfold(images, 4, stride=4).transpose(1, 2)  # (B, T, 3 * 4 * 4)
    proj = backbone.patch_embed.proj
    expected = F.linear(patches, proj.weight.flatten(1), proj.bias).mean(1)
    np.testing.assert_allclose(out['embed', 'avg'], expected.detach().numpy(), atol=1e-5)


def test_each_image_passes_each_layer_once_and_no_layer_above_runs():
    backbone = vit()
    seen = []
    for module in (backbone.patch_embed, *backbone.layers):
        module.register_forward_hook(lambda module, args, out: seen.append((module, len(args[0]))))
    extract(backbone, [(layer, pooling) for layer in ('embed', 0, 1) for pooling in ('avg', 'last', 'bos')])
    for module in (backbone.patch_embed, *backbone.layers[:2]):
        assert [n for m, n in seen if m is module] == [4, 4, 2]
    assert not [n for m, n in seen if m is backbone.layers[2]]


def test_probing_leaves_the_backbone_as_it_was():
    backbone = vit(frozen_stages=1, causal=True).train()
    modes = [module.training for module in backbone.modules()]
    assert True in modes and False in modes
    with probing(backbone, causal=False):
        assert not backbone.causal and not any(module.training for module in backbone.modules())
    assert backbone.causal and [module.training for module in backbone.modules()] == modes
    with pytest.raises(RuntimeError, match='x'), probing(backbone, causal=False):
        raise RuntimeError('x')
    assert backbone.causal and [module.training for module in backbone.modules()] == modes


def test_half_precision_and_autocast_are_close():
    backbone = vit()
    items = [('embed', 'avg'), (2, 'avg')]
    full, _ = extract(backbone, items)
    half, _ = extract(backbone, items, dtype='float16')
    bf16, _ = extract(backbone, items, amp=True)
    for item in items:
        assert half[item].dtype == np.float16
        np.testing.assert_allclose(half[item], full[item], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(bf16[item], full[item], atol=0.05)
        assert not np.array_equal(bf16[item], full[item])


def test_what_cannot_be_probed_is_refused():
    backbone = vit()
    with pytest.raises(ValueError, match="'bos' is the same for every image under causal attention"):
        extract(vit(causal=True), [(0, 'bos')])
    with pytest.raises(ValueError, match='has no label; a probe needs exactly one class'):
        extract(backbone, [(0, 'avg')], dataset=Unlabelled())
    with pytest.raises(ValueError, match='has 2 labels'):
        extract(backbone, [(0, 'avg')], dataset=Images(label=lambda i: [0, 1]))
    with torch.no_grad():
        backbone.patch_embed.proj.bias.fill_(1e6)
    with pytest.raises(ValueError, match=r'embed, avg: a feature of 1e\+06 does not fit float16 .* store float32'):
        extract(backbone, [('embed', 'avg')], dtype='float16')
    with torch.no_grad():
        backbone.patch_embed.proj.bias.fill_(float('nan'))
    with pytest.raises(ValueError, match='layer_00, avg: NaN or infinite'):
        extract(backbone, [(0, 'avg')])


class Unlabelled(Images):
    """The same without labels."""

    def __getitem__(self, i):
        return dict(inputs=self.images[i], data_samples=DataSample())


def test_layers():
    assert check_layers('all', 3) == ('embed', 0, 1, 2)
    assert check_layers([2, 'embed', -1, 0], 3) == ('embed', 0, 2)
    assert check_layers(-1, 3) == (2,) and check_layers('embed', 3) == ('embed',)
    assert [layer_name(layer) for layer in ('embed', 6)] == ['embed', 'layer_06']
    for wrong in ([3], [-4], ['top'], [True]):
        with pytest.raises(ValueError, match=r"neither 'embed' nor one of 0..2, or -3..-1"):
            check_layers(wrong, 3)
    with pytest.raises(ValueError, match='layers is empty'):
        check_layers([], 3)


def test_two_meanings_of_a_label_are_refused():
    class With:
        def __init__(self, *classes):
            self.metainfo = dict(classes=classes) if classes else {}

    check_same_classes(With('a', 'b'), With('a', 'b'))
    check_same_classes(With(), With('a', 'b'))
    with pytest.raises(ValueError, match=r"\['b'\] only in the training set, \['d'\] only in the validation set"):
        check_same_classes(With('a', 'b', 'c'), With('a', 'c', 'd'))
    with pytest.raises(ValueError, match='the same classes, in another order'):
        check_same_classes(With('a', 'b'), With('b', 'a'))


def test_labels_that_a_linear_probe_cannot_learn_from():
    class Labelled(list):
        metainfo: dict = {}

        def get_data_info(self, index):
            return dict(img_path=f'{index}.jpg') | ({} if self[index] is None else dict(gt_label=self[index]))

    for fits in ([0, 1, 1], [2, 2], [None, None], [0, None], [[0, 1], [1]]):
        check_linear_probe(Labelled(fits))
    with pytest.raises(ProbeError, match='needs at least 2 classes, but all 3 training images are of one'):
        check_linear_probe(Labelled([0, 0, 0]))
    with pytest.raises(ProbeError, match='no class of the 3 training images has two, so none can be held out'):
        check_linear_probe(Labelled([0, 1, 2]))
    named = Labelled([0, 0])
    named.metainfo = dict(classes=('a', 'b'))
    check_linear_probe(named)


# ---------------------------------------------------------------- cache

ITEMS = [(0, 'avg'), (1, 'avg')]


def fill(cache, items=ITEMS, value=1.0):
    with cache.writing(items, (4, 2), 'float32') as arrays:
        for array in arrays.values():
            array[:] = value
    cache.write_labels(np.arange(4))


def test_cache_gives_back_what_was_written(tmp_path):
    cache = FeatureCache(tmp_path, 'train', dict(weights='abc', amp=False))
    assert cache.missing(ITEMS) == ITEMS
    fill(cache, value=3.5)

    again = FeatureCache(tmp_path, 'train', dict(amp=False, weights='abc'))  # whatever the order of the facts
    assert again.folder == cache.folder and again.missing(ITEMS) == []
    assert again.missing([*ITEMS, (2, 'avg'), (0, 'last')]) == [(2, 'avg'), (0, 'last')]
    assert isinstance(again.read((1, 'avg')), np.memmap)
    assert (again.read((1, 'avg')) == 3.5).all() and again.read((1, 'avg')).shape == (4, 2)
    assert again.read_labels().tolist() == [0, 1, 2, 3]


def test_cache_of_other_facts_is_not_read(tmp_path):
    fill(FeatureCache(tmp_path, 'train', dict(weights='abc')))
    for facts in (dict(weights='abd'), dict(weights='abc', amp=True)):
        assert FeatureCache(tmp_path, 'train', facts).missing(ITEMS) == ITEMS
    assert FeatureCache(tmp_path, 'val', dict(weights='abc')).missing(ITEMS) == ITEMS


def test_cache_of_a_run_that_was_cut_short_is_not_read(tmp_path):
    cache = FeatureCache(tmp_path, 'train', dict(a=1))
    with pytest.raises(KeyboardInterrupt), cache.writing(ITEMS, (4, 2), 'float32'):
        raise KeyboardInterrupt
    assert cache.missing(ITEMS) == ITEMS and list(cache.folder.iterdir()) == []
    with cache.writing(ITEMS, (4, 2), 'float32'):
        pass  # and killed before the labels
    assert cache.missing(ITEMS) == ITEMS


def test_cache_that_does_not_fit_the_disk_is_refused(tmp_path):
    cache = FeatureCache(tmp_path, 'train', dict(a=1))
    with (
        pytest.raises(OSError, match=r'need 8000000\.0 GB; name fewer layers'),
        cache.writing(ITEMS, (10**12, 1000), 'float32'),
    ):
        pass


def test_hash_of_weights_sees_values_names_and_shapes():
    layer = nn.Linear(2, 3)
    same = nn.Linear(2, 3)
    same.load_state_dict(layer.state_dict())
    assert hash_weights(layer) == hash_weights(same)
    with torch.no_grad():
        same.bias[1] += 1e-6
    assert hash_weights(layer) != hash_weights(same)
    flat = nn.ParameterDict(dict(x=torch.zeros(6)))
    assert hash_weights(flat) != hash_weights(nn.ParameterDict(dict(x=torch.zeros(2, 3))))
    assert hash_weights(flat) != hash_weights(nn.ParameterDict(dict(y=torch.zeros(6))))


def test_hash_of_samples_sees_paths_labels_and_changed_files(tmp_path):
    class Files:
        def __init__(self, labels):
            self.labels = labels

        def __len__(self):
            return len(self.labels)

        def get_data_info(self, i):
            return dict(gt_label=self.labels[i], img_path=str(tmp_path / f'{i}.png'), sample_idx=i)

    for i in range(2):
        (tmp_path / f'{i}.png').write_text('image')
    before = hash_samples(Files([0, 1]))
    assert hash_samples(Files([0, 1])) == before
    assert hash_samples(Files([1, 1])) != before
    (tmp_path / '1.png').write_text('another image')
    assert hash_samples(Files([0, 1])) != before


def test_hash_of_samples_that_are_rows_of_a_table_sees_the_tables_files(tmp_path):
    class Rows(BaseDataset):
        def load_data_list(self):
            return [dict(img_path=f'table[{i}]', gt_label=i) for i in range(3)]

        def get_data_info(self, idx):
            raise AssertionError('would read the image')

    (tmp_path / 'part').mkdir()
    table = tmp_path / 'part' / '0.parquet'
    table.write_text('rows')
    before = hash_samples(Rows(data_root=str(tmp_path)))
    assert hash_samples(Rows(data_root=str(tmp_path))) == before
    table.write_text('other rows')
    assert hash_samples(Rows(data_root=str(tmp_path))) != before

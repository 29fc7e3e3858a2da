"""CamVid street scenes for segmentation: 11 classes, void ignored."""

from mmengine.registry import DATASETS

from .folder_seg import FolderSegDataset


@DATASETS.register_module()
class CamVidDataset(FolderSegDataset):
    """CamVid (Brostow et al., 2009) in the 11 classes that SegNet made customary.

    Reads what ``tools/dataset_converters/camvid.py`` writes: ``images/{train,val[,test]}`` and
    ``annotations/{train,val[,test]}``, labels 0 to 10 with 255 for void.

    Args:
        **kwargs: Those of :class:`FolderSegDataset`. Both .png and .jpg forms of the data set are in use, and either is
            found.
    """

    HINT = 'prepare it with tools/dataset_converters/camvid.py'
    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign symbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

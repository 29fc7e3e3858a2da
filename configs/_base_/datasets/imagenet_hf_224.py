# ImageNet-1k as a Hugging Face data set in data/imagenet_hf, read without unpacking: saved with save_to_disk, or the
# hub's parquet files. Unlabelled, for pretraining; docs/datasets.md has the rest.
_base_ = './image_folder_224.py'
data_root = 'data/imagenet_hf'
train_dataloader = dict(dataset=dict(type='HuggingFaceImageDataset', data_root=data_root, split='train'))

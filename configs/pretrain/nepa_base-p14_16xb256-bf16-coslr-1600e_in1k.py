# The release's NEPA-B on two nodes of eight GPUs (NNODES=2, see tools/dist_train.sh): the same batch of 4096.
_base_ = './nepa_base-p14_8xb512-bf16-coslr-1600e_in1k.py'
train_dataloader = dict(batch_size=256)

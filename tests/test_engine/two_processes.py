"""Runs of two processes, in one process group: what tests/test_engine/test_two_processes.py looks at.

Started by torchrun; the argument is the folder for the work directories.
"""

import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.registry import DATASETS, RUNNERS
from mmpretrain.structures import DataSample

import nepa_mm.engine  # noqa: F401
from nepa_mm.apis.cli import close_process_group

ARCH = dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32)
SHARDED = dict(runner_type='NEPAFlexibleRunner', strategy=dict(type='FullyShardStrategy'))

# Traced as for a GPU, forward and backward, and run without a compiler's code.
COMPILED = dict(backend='aot_eager')


@DATASETS.register_module(force=True)
class TwoProcessesImages(torch.utils.data.Dataset):
    """Eight images of noise."""

    metainfo: dict = dict()

    def __len__(self):
        return 8

    def __getitem__(self, i):
        image = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
        return dict(inputs=image, data_samples=DataSample())


def config(
    work_dir: Path, launcher: str = 'pytorch', batch: int = 2, accumulation: int = 2, ema: bool = True, **changes
) -> Config:
    """A pretraining of three updates with the hooks of the recipes: two processes take two images each, twice.

    AdamW with a large eps: with the usual one, its first steps have the size of the lr wherever a gradient is not
    exactly 0, and would turn what a sum rounds otherwise into another update.
    """
    cfg = dict(
        runner_type='NEPARunner',
        default_scope='mmpretrain',
        work_dir=str(work_dir),
        experiment_name=work_dir.name,
        launcher=launcher,
        # no random rescale: runs are compared number by number
        model=dict(
            type='NEPA',
            backbone=dict(type='NEPAViT', arch=ARCH, patch_size=4, layer_scale_init=0.1, rope=dict(rescale=None)),
        ),
        train_dataloader=dict(
            batch_size=batch,
            num_workers=0,
            dataset=dict(type='TwoProcessesImages'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.1, eps=1e-2, weight_decay=0.05, fused=True),
            constructor='BackboneLayerDecayConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.9),
            clip_grad=dict(max_norm=1.0),
            accumulative_counts=accumulation,
        ),
        param_scheduler=dict(type='LayerWiseCosineLR', warmup=1, end=3, by_epoch=True, convert_to_iter_based=True),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='SafeCheckpointHook', interval=1),
            bad_numbers=dict(type='BadNumbersHook'),
            stop=dict(type='StopOnSignalHook'),
        ),
        custom_hooks=[dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.1, interval=accumulation)] * ema,
        auto_scale_lr=dict(base_batch_size=4 * accumulation),
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
        randomness=dict(seed=0, diff_rank_seed=False),
    )
    return Config(cfg | changes)


def main() -> None:
    """All runs, one after the other."""
    folder = Path(sys.argv[1])

    def train(name: str, **changes):
        runner = RUNNERS.build(config(folder / name, **changes))
        runner.train()
        return runner

    train('ddp')
    train('ddp_accum1', accumulation=1)
    train('ddp_no_ema', ema=False)
    sharded = train('sharded', **SHARDED)
    held = sum(p.to_local().numel() for p in sharded.model.parameters())
    (folder / f'held_{get_rank()}').write_text(str(held))
    train('sharded_accum1', accumulation=1, **SHARDED)
    train('ddp_compiled', compile=COMPILED)
    train('sharded_compiled', compile=COMPILED, **SHARDED)
    checkpointed = config(folder / 'x').model
    checkpointed.backbone.with_cp = True
    train('checkpointed', model=checkpointed, **SHARDED)
    first = str(folder / 'sharded/epoch_1.pth')
    train('resumed', load_from=first, resume=True, **SHARDED)
    train('resumed_by_ddp', load_from=first, resume=True)
    train('resumed_from_ddp', load_from=str(folder / 'ddp/epoch_1.pth'), resume=True, **SHARDED)
    started = train('started', load_from=first, train_cfg=dict(by_epoch=True, max_epochs=0), **SHARDED)
    torch.save({k: v.full_tensor() for k, v in started.model.state_dict().items()}, folder / f'started_{get_rank()}')
    half = dict(optim_wrapper=dict(config(folder / 'x').optim_wrapper, type='AutocastOptimWrapper'))
    train('ddp_bf16', **half)
    train('sharded_bf16', **half, **SHARDED)
    close_process_group()


if __name__ == '__main__':
    main()

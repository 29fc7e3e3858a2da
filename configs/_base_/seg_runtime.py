# Segmentation: mmseg's scope, iterations instead of epochs.
_base_ = './default_runtime.py'
default_scope = 'mmseg'

visualizer = dict(type='LazySegLocalVisualizer', vis_backends={{_base_.vis_backends}}, name='visualizer')
log_processor = dict(by_epoch=False)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=3, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    bad_data=dict(type='BadDataHook', max_bad_share=0.01),
    bad_numbers=dict(type='BadNumbersHook', patience=10),
    stop=dict(type='StopOnSignalHook'),
    visualization=dict(type='SegVisualizationHook'),
)
tta_model = dict(type='SegTTAModel')

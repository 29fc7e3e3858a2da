# What every config shares. `cls_runtime.py` and `seg_runtime.py` add the host's scope and visualizer.
custom_imports = dict(imports=['nepa_mm'], allow_failed_imports=False)
runner_type = 'NEPARunner'

env_cfg = dict(
    cudnn_benchmark=False,
    # One OpenCV thread per data worker: OpenCV and torch both start one per core in every worker otherwise.
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='PatientVisBackend')]
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, diff_rank_seed=True)

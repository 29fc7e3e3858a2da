# Without the stop-gradient: in the paper the loss collapses to -1, so there is nothing to fine-tune; watch target_std
# and target_mean_norm in the log.
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-50k_in1k.py'
model = dict(head=dict(loss=dict(stop_gradient=False)))

# Without the shift by one: every position predicts its own embedding. In the paper fine-tuning then diverges.
_base_ = './nepa-swiglu_base-p14_8xb256-bf16-coslr-50k_in1k.py'
model = dict(head=dict(loss=dict(shift=False)))

"""`cifar100-small` with a teacher trained on labels: a positive control."""

from dataclasses import replace

from benchmark.grid import Suite

from .cifar100_small import cifar100_small as _small

__all__ = ["cifar100_small_labels"]

cifar100_small_labels: Suite = replace(
    _small,
    name="cifar100-small-labels",
    title="cifar100-small with a teacher trained on labels: a positive control",
    notes="""
`cifar100-small` with one student and one budget, and the one change that self-supervised
distillation rules out: the teacher (the same network) saw the labels of CIFAR-100. It shows what
the methods gain from representations that are much better than those of an untrained student; none
of this is self-supervised. It takes about two hours on one core, an hour and a quarter
with `--no-ablation`.
""".strip(),
    teacher="supervised",
    students=("convnet",),
    budgets=(100,),
    settings={
        **_small.settings,
        # as in early experiments with this network: short, as each image is seen often enough
        "supervised": {
            "model": "resnet-small",
            "epochs": 8,
            "standardise": True,
            "storage": "fp16",
            "probe_every": 2,
        },
    },
)

"""`cifar100-small` with a teacher trained on labels: a positive control of the whole idea."""

from dataclasses import replace

from benchmark.grid import Suite

from .cifar100_small import cifar100_small as _small

__all__ = ["cifar100_small_labels"]

cifar100_small_labels: Suite = replace(
    _small,
    name="cifar100-small-labels",
    title="cifar100-small with a teacher trained on labels: a positive control",
    notes="""
What `cifar100-small` asks, of one student at one budget, with the one thing changed that
self-supervised distillation must do without: the teacher (the same network) saw the labels of
CIFAR-100. It shows what the methods make of representations that are much better than those of an
untrained student; nothing here is self-supervised. Takes about an hour and a half of one core.
""".strip(),
    teacher="supervised",
    students=("convnet",),
    budgets=(100,),
    settings={
        **_small.settings,
        # the recipe of the prototypes on this network: short, as the images are seen often enough
        "supervised": {
            "model": "resnet-small",
            "epochs": 8,
            "standardise": True,
            "storage": "fp16",
            "probe_every": 2,
        },
    },
)

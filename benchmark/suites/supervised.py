"""The supervised peers as they are published: networks trained from scratch on few images."""

from benchmark.plan import Suite
from benchmark.pretrain import Length

__all__ = ["supervised"]

_WIDTHS = {"inner_widths": (16, 32, 64)}

supervised = Suite(
    name="supervised",
    title="ten classes of CIFAR-100: DSA, IDM and DATM against random images, minutes on a CPU",
    notes="""
The first ten classes of CIFAR-100 at one and ten images per class, narrow networks, and outer loops
cut down to minutes: whether each method works, not a reproduction of its published numbers. What
they are published with is the accuracy of a network trained from scratch, its own classifier; the
linear probe on its features stands beside it. The teacher plays no part but that the budget counts
its representations.
""".strip(),
    source="cifar100:10",
    size=32,
    teacher="fashion-mnist-teacher",
    methods=("dsa", "idm", "datm"),
    controls=("random-labels",),
    ablation=(),
    students=("convnet",),
    downstream=("cifar100:10",),
    budgets=(100, 10),
    seeds=(0, 1, 2),
    recipe="equal-steps",
    lengths={
        "equal-steps": Length(steps=500),
        "paper": Length(epochs=1000),
        "own": Length(epochs=1000),
    },
    probes=("head", "fair"),
    labels_per_class=(None,),
    settings={
        "dsa": {**_WIDTHS, "num_inner_models": 20, "real_batch": 64, "inner_epochs": 10},
        "idm": {
            **_WIDTHS,
            "outer_steps": 200,
            "real_batch": 64,
            "inner_steps": 5,
        },
        "datm": {
            **_WIDTHS,
            "outer_steps": 300,
            "inner_steps": 20,
            "num_experts": 5,
            "expert_epochs": 22,
        },
        "convnet": {"widths": (16, 32, 64), "norm": "instance"},
    },
    precision="fp32",
)

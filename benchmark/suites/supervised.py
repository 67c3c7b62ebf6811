"""The supervised peers evaluated as published: networks trained from scratch on few images."""

from benchmark.grid import Suite

__all__ = ["supervised"]

_WIDTHS = {"inner_widths": (16, 32, 64)}

supervised = Suite(
    name="supervised",
    title="ten classes of CIFAR-100: DSA, IDM and DATM against random images, minutes on a CPU",
    notes="""
The first ten classes of CIFAR-100 at one and ten images per class, narrow networks, and outer loops
cut down to minutes: this tests whether each method works, and does not reproduce its published
numbers. Published is the accuracy of a network trained from scratch, its own classifier; the linear
probe on its features is shown beside it. The teacher plays no part, except that the budget counts
its representations. There are no published settings for ten classes of CIFAR-100; unless stated
otherwise, IDM and DATM use those for CIFAR-10.

The learning rate of the images was chosen without the test split, on the part of the training split
that `--source cifar100:10:held-out --downstream cifar100:10:held-out` holds out, with seeds 10 and
11: of DSA's 0.3, 1 and 3, IDM's 0.3, 1 and 3, and DATM's 100 and 1 000 the one with the best mean
over both budgets. The seeds reported here are different, and no earlier run has used them. All
other settings (lengths, DATM's learning rates of experts and students, its threshold and epochs)
were set by hand in earlier runs of seed 0 whose test accuracies were seen. So this shows that each
method works, but it does not rank them, nor are their lengths comparable.
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
    seeds=(3, 4, 5, 6, 7),
    recipe="equal-steps",
    student_steps=300,
    probes=("head", "fair"),
    labels_per_class=(None,),
    settings={
        # fewer and larger steps than published, otherwise the published recipes
        "dsa": {
            **_WIDTHS,
            "num_inner_models": 12,
            "outer_steps_per_model": 5,
            "inner_epochs": 5,
            "outer_lr": 3.0,
            "real_batch": 32,
        },
        "idm": {
            **_WIDTHS,
            "recipe": "cifar10",
            "outer_steps": 60,
            "outer_lr": 0.3,
            "real_batch": 64,
            "birth_interval": 5,
            "inner_steps": 3,
            "inner_batch": 64,
            "queue_size": 10,
        },
        "datm": {
            **_WIDTHS,
            "recipe": "cifar10",
            "outer_steps": 60,
            "inner_steps": 8,
            "inner_batch": 20,
            "initial_lr": 0.02,
            "target_epochs": 1,
            "start_epochs": (0, 2, 4),
            "expansion_steps": 30,
            "num_experts": 3,
            "expert_epochs": 6,
            "expert_lr": 0.05,
            "threshold": 1.5,
        },
        "convnet": {"widths": (16, 32, 64), "norm": "instance"},
    },
    precision="fp32",
)

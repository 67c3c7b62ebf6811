"""The published protocol: source CIFAR-100, six students, budgets from 25 to 5 000."""

from benchmark.grid import Suite

from ._ablation import BASES, NONE, VIEWS

__all__ = ["cifar100"]

cifar100 = Suite(
    name="cifar100",
    title="the published protocol on CIFAR-100 (one GPU, days with all methods and budgets)",
    notes="""
The protocol of the published tables: Barlow Twins teacher (ResNet-18, 1 000 epochs), every method
with its published settings, students pretrained for 1 000 epochs and probed on frozen features. The
supervised methods need budgets of one image per class (N = 100) or a multiple of it.
`plan --suite cifar100 --device h100` says what it costs.
""".strip(),
    source="cifar100",
    size=32,
    teacher="barlow-twins",
    methods=("random", "dsa", "idm", "datm", "krr-st", "ours"),
    controls=("untrained", "random-labels", "random-bytes", "pca", "full", "teacher"),
    ablation=(NONE, BASES, VIEWS),
    students=("convnet", "vgg11", "resnet18", "alexnet", "mobilenet", "vit"),
    downstream=("cifar100", "cifar10", "cub2011", "stanford-dogs"),
    where_present=("cub2011",),  # must be downloaded by hand
    budgets=(100, 25, 50, 1000, 5000),
    seeds=(0, 1, 2),
    recipe="paper",
    student_steps=4000,
)

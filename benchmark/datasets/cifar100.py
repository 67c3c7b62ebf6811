"""CIFAR-100: 60 000 tiny photographs of 100 classes."""

from torchvision.datasets import CIFAR100

from benchmark.datasets._cifar import Cifar
from benchmark.spec import DatasetInfo

__all__ = ["Cifar100"]


class Cifar100(Cifar):
    """``cifar100/{train,test}/<class>/<image>``, or torchvision's ``cifar-100-python``."""

    folder = "cifar100"
    source = CIFAR100
    info = DatasetInfo(
        title="CIFAR-100",
        num_classes=100,
        num_train=50_000,
        num_test=10_000,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; collected from the web for research",
        citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    )

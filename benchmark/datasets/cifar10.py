"""CIFAR-10: 60 000 tiny photographs of 10 classes."""

from torchvision.datasets import CIFAR10

from benchmark.datasets._cifar import Cifar
from benchmark.spec import DatasetInfo

__all__ = ["Cifar10"]


class Cifar10(Cifar):
    """``cifar10/{train,test}/<class>/<image>``, or torchvision's ``cifar-10-batches-py``."""

    folder = "cifar10"
    source = CIFAR10
    info = DatasetInfo(
        title="CIFAR-10",
        num_classes=10,
        num_train=50_000,
        num_test=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; collected from the web for research",
        citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    )

"""The default suite: everything the benchmark does, in minutes, on data that ships with it."""

from benchmark.plan import Suite, Variant
from benchmark.pretrain import Length

__all__ = ["quick"]

_STORAGE = {"num_image_bases": 24, "num_target_bases": 24}
_LOOP = {
    "outer_steps": 80,
    "real_batch": 128,
    "distilled_batch": 128,
    "pool_size": 4,
    "max_age": 40,
    "inner_widths": (16, 32, 64),
}
_OURS = {**_STORAGE, **_LOOP, "outer_views": "one", "approximation_steps": 500}

quick = Suite(
    name="quick",
    title="Fashion-MNIST, shipped with the package: six students, minutes on two CPU cores",
    notes="""
A demonstration at small scale, not a reproduction of the published numbers: 10 000 training images
of Fashion-MNIST (4 000 for testing) and scikit-learn's digits as the downstream set, a small Barlow
Twins teacher (d = 128), narrow students pretrained for equally many steps, three seeds, and short
outer loops with one view a step. It shows what each part does, and it can tell families of methods
apart.
""".strip(),
    source="fashion-mnist",
    size=32,
    teacher="fashion-mnist-teacher",
    methods=("random", "krr-st", "ours"),
    controls=("untrained", "random", "pca", "teacher"),
    ablation=(
        Variant(
            label="ours: bases only",
            method="ours",
            settings={"augmentations": (), "approximation": False},
        ),
    ),
    students=("convnet", "vgg11", "resnet18", "alexnet", "mobilenet", "vit"),
    downstream=("fashion-mnist", "digits"),
    budgets=(20, 50),
    seeds=(0, 1, 2),
    recipe="equal-steps",
    lengths={
        "equal-steps": Length(steps=100),
        "paper": Length(epochs=1000),
        "own": Length(epochs=1000),
    },
    settings={
        "krr-st": _LOOP,
        "ours": _OURS,
        "pca": {**_STORAGE, "approximation_steps": 500},
        # how the shipped teacher was made; prototypes chose these on the training split
        "barlow-twins": {
            "model": "resnet-small",
            "epochs": 60,
            "optimizer": "adamw",
            "lr": 2e-3,
            "warmup_epochs": 18,
            "projector_hidden": 512,
            "projector_output": 512,
            "crop_scale": (0.3, 1.0),
            "contrast": 0.0,
            "saturation": 0.0,
            "hue": 0.0,
            "gamma": 0.3,
            "grey": 0.0,
            "solarise": 0.0,
            "standardise": True,
            "storage": "fp16",
            "probe_every": 2,
        },
        "mse": {"batch_size": 64},
        "fair": {"strengths": (1.0, 0.1, 0.01, 0.001), "tolerance": 1e-3, "min_held_out": 200},
        "paper": {"steps": 300, "batch": 256},
        "convnet": {"widths": (8, 16, 16)},
        "vgg11": {"width": 0.125},
        "resnet18": {"width": 0.125, "stem_stride": 2},
        "alexnet": {"width": 0.0625},
        "mobilenet": {"width": 0.125, "stem_stride": 2},
        "vit": {"width": 0.25, "depth": 2, "patch_size": 8},
    },
    precision="fp32",
)

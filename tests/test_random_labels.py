import pytest
import torch

from benchmark.loop import CheckpointedLoop
from benchmark.methods.random_labels import RandomLabels
from benchmark.spec import UsageError


def distil(problem, seed=0):
    loop = CheckpointedLoop(None, description="random-labels")
    generator = torch.Generator().manual_seed(seed)
    return RandomLabels().distill(problem, generator=generator, checkpoint=loop)


def test_real_images_the_same_number_of_each_class(labelled_problem):
    problem = labelled_problem(N=12)
    stored = distil(problem)
    assert stored["images"].dtype == torch.uint8
    assert sum(t.numel() for t in stored.values()) <= problem.num_floats
    decoded = RandomLabels().decode(stored, problem.shape)
    assert decoded.objective == "cross-entropy"
    found = [
        (problem.images == image).flatten(1).all(1).nonzero().item() for image in decoded.images
    ]
    assert len(set(found)) == 12
    assert torch.equal(problem.labels[found], decoded.targets[0].argmax(1))
    assert not torch.equal(distil(problem, seed=1)["images"], stored["images"])


def test_less_than_one_image_per_class_is_refused(labelled_problem):
    with pytest.raises(UsageError, match="less than one image for each of 3 classes"):
        distil(labelled_problem(N=2))

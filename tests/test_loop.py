import json
import math
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmark import loop as loop_module
from benchmark.loop import CheckpointedLoop
from benchmark.spec import NonFiniteError, UsageError


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(loop_module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Walk:
    """A momentum walk whose every part must survive for its path to stay the same."""

    def __init__(self, seed=0):
        self.position = torch.zeros(3)
        self.optimizer = torch.optim.SGD([self.position], lr=0.1, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1, 0.1, total_iters=40)
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def state(self):
        return dict(vars(self))

    def go(self, loop, name, total, *, die_before=None):
        taken = []
        for step in loop.steps(name, total, **self.state):
            if step == die_before:
                raise KeyboardInterrupt
            self.position.grad = torch.randn(3, generator=self.generator)
            self.optimizer.step()
            self.schedule.step()
            loop.log(step, first=self.position[0], second=float(self.position[1]))
            taken.append(step)
        return taken


def new_loop(folder, **settings):
    return CheckpointedLoop(folder, description="toy", **settings)


@pytest.mark.parametrize("die_before", [0, 1, 17, 29])
def test_a_killed_loop_goes_on_with_the_same_numbers(tmp_path, saved_at_every_step, die_before):
    whole, whole_loop = Walk(), new_loop(None)
    whole.go(whole_loop, "walk", 30)

    with pytest.raises(KeyboardInterrupt):
        Walk().go(new_loop(tmp_path, save_every_seconds=0.0), "walk", 30, die_before=die_before)
    resumed, loop = Walk(seed=9 if die_before else 0), new_loop(tmp_path)
    assert resumed.go(loop, "walk", 30) == list(range(die_before, 30))

    assert torch.equal(resumed.position, whole.position)
    assert resumed.schedule.get_last_lr() == whole.schedule.get_last_lr()
    assert torch.equal(resumed.generator.get_state(), whole.generator.get_state())
    assert loop.history == whole_loop.history


def test_several_loops_each_go_on_where_they_were(tmp_path, saved_at_every_step):
    first, second, loop = Walk(1), Walk(2), new_loop(tmp_path, save_every_seconds=0.0)
    first.go(loop, "first walk", 5)
    with pytest.raises(KeyboardInterrupt):
        second.go(loop, "second walk", 5, die_before=3)

    again, second_again, loop = Walk(), Walk(), new_loop(tmp_path)
    assert again.go(loop, "first walk", 5) == []
    assert torch.equal(again.position, first.position)
    assert second_again.go(loop, "second walk", 5) == [3, 4]
    assert {name: len(points) for name, points in loop.history.items()} == {
        "first walk": 5,
        "second walk": 5,
    }
    json.dumps(loop.history)


def test_without_a_folder_nothing_is_kept(tmp_path):
    Walk().go(new_loop(None, save_every_seconds=0.0), "walk", 3)
    assert Walk().go(new_loop(None), "walk", 3) == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [True, False])
def test_two_loops_of_one_name_are_refused(tmp_path, kept):
    """With a folder the second would take the first one's checkpoint for its own, and no step."""
    loop = new_loop(tmp_path if kept else None)
    Walk().go(loop, "walk", 3)
    with pytest.raises(ValueError, match=r"a second loop is called 'walk'"):
        Walk().go(loop, "walk", 3)


def test_seconds_add_up_over_processes(tmp_path, clock):
    loop = new_loop(tmp_path, save_every_seconds=10.0)
    for step in loop.steps("walk", 9, **Walk().state):
        clock.now += 11
        if step == 4:  # the last checkpoint was made after step 3
            break
    assert loop.seconds == pytest.approx(55)
    clock.now += 1000  # the machine was off
    loop = new_loop(tmp_path)
    clock.now += 5
    assert next(loop.steps("walk", 9, **Walk().state)) == 4
    assert loop.seconds == pytest.approx(44 + 5)


@pytest.mark.parametrize(("cost", "share"), [(0.0, 0.0), (0.1, 0.01), (30.0, 0.05)])
def test_saving_takes_at_most_a_twentieth_of_the_time(tmp_path, clock, monkeypatch, cost, share):
    saves = []

    def save(content, file):
        clock.now += cost
        saves.append(content["step"])

    monkeypatch.setattr(loop_module.torch, "save", save)
    steps, length = 20_000, 1.0
    for _ in new_loop(tmp_path).steps("walk", steps, part=torch.zeros(1)):
        clock.now += length
    assert len(saves) > 25
    assert cost * len(saves) <= share * steps * length + 2 * cost  # the first is a guess


def test_the_end_of_a_loop_is_always_saved(tmp_path):
    Walk().go(new_loop(tmp_path, save_every_seconds=1e9), "short walk", 3)
    assert Walk().go(new_loop(tmp_path), "short walk", 3) == []


def test_the_end_of_a_loop_may_be_left_unsaved_if_it_came_soon(tmp_path, saved_at_every_step):
    """What a later step finds is then made once more, or gone on from where it was saved."""
    Walk().go(new_loop(tmp_path, save_ends=False), "short walk", 3)
    assert Walk().go(new_loop(tmp_path), "short walk", 3) == [0, 1, 2]
    Walk().go(new_loop(tmp_path, save_ends=False, save_every_seconds=0.0), "long walk", 3)
    assert Walk().go(new_loop(tmp_path), "long walk", 3) == []


def test_global_streams_of_devices_that_are_gone_are_left(tmp_path, monkeypatch):
    cuda, restored = torch.cuda, []
    monkeypatch.setattr(cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(cuda, "get_rng_state_all", lambda: [torch.tensor(i) for i in range(2)])
    monkeypatch.setattr(cuda, "set_rng_state_all", restored.extend)
    Walk().go(new_loop(tmp_path), "walk", 3)
    monkeypatch.setattr(cuda, "device_count", lambda: 1)
    assert Walk().go(new_loop(tmp_path), "walk", 3) == []
    assert restored == [torch.tensor(0)]


def test_history_is_thinned_evenly_and_keeps_the_last_step():
    loop = new_loop(None)
    for step in loop.steps("long", 1003):
        loop.log(step, value=step / 2)
    points = loop.history["long"]
    assert [point["step"] for point in points[:3]] == [0, 6, 12]
    assert points[-1] == {"step": 1002, "value": 501.0}
    assert len(points) == 168 <= 201


@pytest.mark.parametrize("bad", [math.nan, math.inf, torch.tensor(-math.inf)])
def test_a_value_that_is_not_finite_is_named_and_never_saved(tmp_path, saved_at_every_step, bad):
    loop = new_loop(tmp_path, save_every_seconds=0.0)
    part = torch.zeros(())
    with pytest.raises(
        NonFiniteError, match=r"^toy: loss is (nan|-?inf) at step 7 of outer steps$"
    ):
        for step in loop.steps("outer steps", 100, part=part):
            part += 1
            loop.log(step, rate=0.1, loss=bad if step == 7 else torch.ones(()))
    part.zero_()
    assert next(new_loop(tmp_path).steps("outer steps", 100, part=part)) == 7
    assert part == 7


@pytest.mark.parametrize("save_ends", [True, False])
def test_a_value_that_is_not_finite_is_found_without_checkpoints_too(save_ends):
    loop = new_loop(None, save_ends=save_ends)
    with pytest.raises(NonFiniteError, match="loss is nan at step 9 of steps"):
        for step in loop.steps("steps", 10):
            loop.log(step, loss=math.nan if step == 9 else 0.0)


def damage_nothing_left(file):
    file.write_bytes(b"")


def damage_cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def damage_other_bytes(file):
    file.write_bytes(b"these bytes are no checkpoint")


def damage_other_content(file):
    torch.save([1, 2, 3], file)


def damage_other_parts(file):
    content = torch.load(file, weights_only=True)
    content["state"].pop("generator")
    torch.save(content, file)


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_left,
        damage_cut_short,
        damage_other_bytes,
        damage_other_content,
        damage_other_parts,
    ],
)
def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path, damage):
    Walk().go(new_loop(tmp_path), "long walk", 3)
    (file,) = tmp_path.iterdir()
    damage(file)
    with pytest.raises(UsageError) as caught:
        Walk().go(new_loop(tmp_path), "long walk", 3)
    message = str(caught.value)
    assert message.startswith(f"{file}: not a checkpoint of this loop (")
    assert message.endswith("): delete it to start over")
    assert len(message.splitlines()) == 1
    file.unlink()
    assert Walk().go(new_loop(tmp_path), "long walk", 3) == [0, 1, 2]


def test_memory_that_runs_out_while_resuming_is_no_damage(tmp_path, monkeypatch):
    """The stage continues from its checkpoint with less memory (`benchmark.execute`)."""

    def fail(target, saved):
        raise torch.OutOfMemoryError("CUDA out of memory")

    Walk().go(new_loop(tmp_path), "walk", 3)
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(loop_module, "_load_into", fail)
        Walk().go(new_loop(tmp_path), "walk", 4)
    assert Walk().go(new_loop(tmp_path), "walk", 4) == [3]


class Trap:
    """Makes a folder when it is unpickled as code."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_is_data_and_never_runs(tmp_path):
    torch.save({"step": 1, "state": Trap(tmp_path / "sprung")}, tmp_path / "walk.pt")
    with pytest.raises(UsageError, match="not a checkpoint of this loop"):
        Walk().go(new_loop(tmp_path), "walk", 3)
    assert not (tmp_path / "sprung").exists()


def test_a_failed_save_leaves_the_checkpoint_before_it(tmp_path, saved_at_every_step, monkeypatch):
    loop = new_loop(tmp_path, save_every_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        Walk().go(loop, "walk", 9, die_before=4)

    def fail(content, file):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(loop_module.torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        Walk().go(new_loop(tmp_path, save_every_seconds=0.0), "walk", 9)
    assert [file.name for file in tmp_path.iterdir()] == ["walk.pt"]
    monkeypatch.undo()
    assert Walk().go(new_loop(tmp_path), "walk", 9)[0] == 4


def test_what_others_spent_is_counted(clock, tmp_path):
    loop = new_loop(tmp_path)
    clock.now += 3
    loop.charge(40.0)
    assert loop.seconds == 43
    assert list(loop.steps("a", 1)) == [0]
    assert new_loop(tmp_path).seconds == 0
    again = new_loop(tmp_path)
    assert list(again.steps("a", 1)) == []
    assert again.seconds == 43


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_told_as_such(tmp_path, saved_at_every_step, monkeypatch):
    @contextmanager
    def full(file):
        yield Path("/dev/full")

    monkeypatch.setattr(loop_module, "atomic", full)
    with pytest.raises(OSError, match="No space left on device"):
        Walk().go(new_loop(tmp_path, save_every_seconds=0.0), "walk", 9)

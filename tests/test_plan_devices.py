"""How long work takes: rooflines by hand, a calibrated device by what was timed."""

import pytest
import torch

from benchmark import captured
from benchmark.network_factory import NetworkFactory
from benchmark.operators import Operator
from benchmark.planning import calibration
from benchmark.planning.calibration import ThisDevice
from benchmark.planning.devices import NamedDevice, Roofline
from benchmark.planning.network_cost import PassCost
from benchmark.planning.networks import Networks
from benchmark.planning.report import calibration_table
from benchmark.planning.sheets import SHEETS
from benchmark.spec import ImageShape, UsageError
from benchmark.timing import Clock, Rates
from benchmark.workload import Architecture, Work
from tests.tape import Tapes

NET = Architecture.of("convnet", 5, {"widths": (4, 4)})
RATES = Rates(operations={"matrix product fp32": 100.0, "convolution fp32": 10.0}, copied=50.0)


def networks():
    return Networks(NetworkFactory(shape=ImageShape(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3))


def test_each_operator_takes_what_bounds_it():
    roofline = Roofline(rates=RATES, launch=0.5, replay=0.1, tf32=1.0)
    operators = (
        Operator(200, "convolution fp32", 100),  # 20 s of arithmetic, 2 s of memory
        Operator(200, "matrix product fp32", 400),  # 2 s, 8 s
        Operator(0, None, 100),  # 2 s of memory
        Operator(0, None, 1),  # a launch
    )
    cost = PassCost(operators=operators, saved=0, weights=0)
    assert roofline.seconds(cost) == pytest.approx(20 + 8 + 2 + 0.5)
    assert roofline.seconds(cost, captured=True) == pytest.approx(20 + 8 + 2 + 0.1)


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_is_plausible(name):
    """Dense peaks in order of precision."""
    assert SHEETS[name].bf16 > SHEETS[name].tf32 >= SHEETS[name].fp32 > 0


def test_a_named_device_is_expected_to_take_its_roofline(toy_suite):
    device = NamedDevice("h100", toy_suite)
    made = device.networks
    step = device.roofline.seconds(made.cost(NET, 16, training=True))
    view = device.roofline.seconds(made.cost(NET, 16, training=False))
    work = Work(network=NET, training=160, forward=32, batch=16, operators=1000)
    assert device.seconds(work) == pytest.approx(10 * step + 2 * view + 1000 * 7e-6)
    replayed = device.roofline.seconds(made.cost(NET, 16, training=True), captured=True)
    assert replayed < step / 2  # of this network, which is tiny
    work = Work(network=NET, training=160, batch=16, operators=1000, captured=True, launches=40)
    assert device.seconds(work) == pytest.approx(10 * replayed + 1000 * 1.5e-6 + 40 * 7e-6)
    beside = Work(products=6e12, num_bytes=1e12)
    assert device.seconds(beside) == pytest.approx(6 / (0.6 * 66.9) + 1 / (0.7 * 3.35))
    assert device.seconds(Work(tf32_products=6e12)) == pytest.approx(6 / (0.6 * 494.7))
    assert device.seconds(Work(bf16_products=6e12)) == pytest.approx(6 / (0.6 * 989.4))


def test_convolutions_are_expected_at_two_fifths_of_the_peak_those_in_fp32_in_tf32():
    rates = Roofline.of(SHEETS["h100"]).rates.operations
    assert rates["convolution bf16"] == pytest.approx(0.4 * 989.4e12)
    assert rates["convolution fp32"] == pytest.approx(0.4 * 494.7e12)


def test_an_unknown_device_gets_help(toy_suite):
    with pytest.raises(UsageError, match="unknown device 'h10': did you mean 'h100'") as error:
        NamedDevice("h10", toy_suite)
    assert "a100-80gb" in str(error.value) and "\n" not in str(error.value)


def test_a_network_costs_the_same_whatever_its_head():
    made = networks()
    assert made.of(NET) is made.of(Architecture.of("convnet", 9, {"widths": (4, 4)}))
    assert made.of(NET) is not made.of(Architecture.of("convnet", 5, {"widths": (4, 8)}))


class Ticking(Clock):
    """Runs what it is to time, and says that it took a second."""

    def seconds(self, run):
        run()
        return 1.0


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(calibration, "measure_rates", lambda clock: RATES)
    return ThisDevice(networks(), Ticking(device=torch.device("cpu")))


def test_a_launch_is_a_share_of_the_steps_that_are_timed(here):
    """Twenty steps of eight layers take a second: a few forward, backward, and for each weight."""
    operators = 1 / (20 * here.roofline.launch)
    assert operators == pytest.approx(round(operators))
    assert 8 * 2 * 3 < operators < 8 * 2 * 10


def test_a_large_batch_is_so_many_small_ones(here):
    assert here.pass_seconds(NET, 640, training=True) == pytest.approx(10)
    assert here.pass_seconds(NET, 40, training=True) == pytest.approx(40 / 32)
    assert [timed.batch for timed in here.calibrations] == [64, 32]


def test_each_pass_is_timed_once(here):
    for _ in range(2):
        here.seconds(Work(network=NET, training=64, batch=64))
        here.seconds(Work(network=NET, forward=64, batch=64))
    assert [timed.training for timed in here.calibrations] == [True, False]


def test_products_of_a_shape_go_by_their_own_rate(here):
    assert here.seconds(Work(products=200)) == pytest.approx(2)
    assert here.seconds(Work(products=200, shape=(2, 5, 4))) == pytest.approx(200 / (2 * 2 * 5 * 4))
    rounded = Work(products=200, bf16_products=400, shape=(2, 5, 4))
    assert here.seconds(rounded) == pytest.approx(600 / (2 * 2 * 5 * 4))


def test_calibrating_leaves_the_global_stream_alone():
    state = torch.get_rng_state()
    device = ThisDevice(networks(), Clock(device=torch.device("cpu")))
    assert device.pass_seconds(NET, 8, training=True) > 0
    assert 0 < device.roofline.launch < 1e-2
    assert torch.equal(torch.get_rng_state(), state)


def test_a_captured_step_is_timed_as_it_is_replayed(monkeypatch):
    """On the CPU by tape; a CPU itself captures nothing, and takes each operator for a launch."""
    replays = Tapes()
    with monkeypatch.context() as patches:
        patches.setattr(captured, "capture_on", lambda device: replays)
        patches.setattr(captured, "_given_up", False)
        device = ThisDevice(networks(), Clock(device=torch.device("cpu")))
        assert device.captures
        assert replays.captures == 1
        assert replays.replays == 1 + 17 + 3 * 20  # its check, then steps to measure launches
        assert device.roofline.replay != device.roofline.launch
        eager = device.pass_seconds(NET, 8, training=True)
        assert replays.captures == 1
        assert device.pass_seconds(NET, 8, training=True, captured=True) != eager
        assert replays.captures == 2
        assert replays.replays == 78 + 1 + 1 + 3  # once more to warm up
        assert device.pass_seconds(NET, 8, training=False, captured=True) > 0
        assert replays.captures == 2
        passes = [row[1].text for row in calibration_table(device).body]
        assert passes == ["training", "training, replayed", "forward"]
        assert device.seconds(Work(launches=1000)) == 0  # they have been timed with the step
        replays.refuse = True
        assert device.pass_seconds(NET, 16, training=True, captured=True) > 0
        assert not device.captures
        last = calibration_table(device).body[-1]
        assert last[1].text == "training"
    here = ThisDevice(networks(), Clock(device=torch.device("cpu")))
    assert not here.captures
    assert here.seconds(Work(launches=1000)) == 0
    assert here.roofline.replay == here.roofline.launch
    timed = [here.pass_seconds(NET, 8, training=True, captured=how) for how in (False, True)]
    assert timed[0] == timed[1]

"""User code gets copies, and leaves the process as it was."""

import os
import random
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from evometa.user_code import copied, raised_by_code, user_code


def draws():
    """Draw from every global generator."""
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),  # noqa: NPY002
        float(np.random.randn()),  # noqa: NPY002
        float(torch.rand(())),
    )


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


LEFT_BEHIND = {
    "grad mode": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "device": (lambda: torch.set_default_device("meta"), torch.get_default_device),
    "determinism": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "cuDNN": (
        lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
        lambda: torch.backends.cudnn.benchmark,
    ),
    "precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "threads": (lambda: torch.set_num_threads(3), torch.get_num_threads),
    "anomalies": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "numpy's errors": (lambda: np.seterr(all="ignore"), np.geterr),
    "folder": (lambda: os.chdir("/"), os.getcwd),
    "warnings": (
        lambda: warnings.simplefilter("ignore"),
        lambda: [str(each) for each in warnings.filters],
    ),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_code_does_to_the_process_is_taken_back(name, fails):
    change, look = LEFT_BEHIND[name]
    before = look()
    try:
        with user_code():
            change()
            assert look() != before
            if fails:
                raise ValueError("as user code may")
    except ValueError:
        assert fails
    assert look() == before
    assert torch.ones(1).device.type == "cpu"


def test_a_device_that_was_set_before_is_set_again():
    torch.set_default_device("meta")
    try:
        with user_code():
            torch.set_default_device(None)
        assert torch.ones(1).device.type == "meta"
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("seed", [None, 3, 2**62 + 1])
def test_generators_go_on_as_if_nothing_had_been_drawn(seed, odd):
    """Also when half of a pair of normal numbers has been taken before."""
    seed_all(1)
    expected = [draws() for _ in range(1 + odd)][-1], draws()
    seed_all(1)
    found = []
    if odd:
        draws()
    with user_code(seed):
        draws()
    found.append(draws())
    with user_code(seed):
        [draws() for _ in range(700)]  # more than the state is long
    found.append(draws())
    assert tuple(found) == expected


def test_half_of_a_pair_taken_between_two_calls_is_not_given_back():
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.randn(4)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    found = []
    for _ in range(4):
        with user_code(seed=2):
            draws()
        found.append(np.random.randn())  # noqa: NPY002
    assert found == [*expected]


def test_a_seed_decides_all_that_is_drawn():
    with user_code(seed=5):
        first = draws()
    draws()
    with user_code(seed=5):
        assert draws() == first
    with user_code(seed=6):
        assert draws() != first


def test_another_generator_of_numpy_is_kept_as_well():
    before = np.random.mtrand.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        expected = np.random.rand(2)[1]  # noqa: NPY002
        np.random.set_bit_generator(np.random.PCG64(1))
        np.random.rand()  # noqa: NPY002
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with user_code():
                np.random.rand(9)  # noqa: NPY002
        assert np.random.rand() == expected  # noqa: NPY002
    finally:
        np.random.set_bit_generator(before)


def test_a_folder_that_is_gone_is_no_trouble(tmp_path):
    before = Path.cwd()
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    try:
        with user_code():
            os.chdir("/")
            (tmp_path / "gone").rmdir()
        with user_code():
            pass
    finally:
        os.chdir(before)


def test_a_copy_shares_nothing():
    Batch = namedtuple("Batch", "inputs targets")
    value = {"list": [1, {"deep": [2]}], "pair": (torch.ones(2), [3])}
    value["batch"] = Batch(np.ones(2), torch.zeros(1))
    other = copied(value)
    other["list"][1]["deep"].append(9)
    other["pair"][0].add_(1)
    other["pair"][1].append(9)
    other["batch"].inputs[:] = 7
    other["batch"].targets.add_(1)
    other["new"] = 1
    assert value["list"] == [1, {"deep": [2]}] and value["pair"][1] == [3]
    assert value["pair"][0].tolist() == [1, 1] and value["batch"].inputs.tolist() == [1, 1]
    assert value["batch"].targets.tolist() == [0] and "new" not in value
    assert type(other["batch"]) is Batch


def test_an_interrupt_that_code_raises_is_told_from_ctrl_c():
    import signal

    def caught(act):
        try:
            act()
        except BaseException as error:
            return error

    def raises():
        raise KeyboardInterrupt

    def waits():
        signal.raise_signal(signal.SIGINT)
        for _ in range(10):
            pass

    assert raised_by_code(caught(raises))
    assert not raised_by_code(caught(waits))
    assert raised_by_code(SystemExit(1)) and raised_by_code(ValueError())

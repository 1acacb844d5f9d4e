"""What surrounds every call of user code: it gets copies, and leaves nothing behind.

Ported research code sets defaults, seeds and flags of the whole process. Here they last as long as
the call: what one candidate's code does reaches neither the search nor another candidate.
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import os
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

_RAISE = dis.opmap["RAISE_VARARGS"]
_MT19937_BYTES = 625 * 4  # 624 words and a position

T = TypeVar("T")


@contextlib.contextmanager
def user_code(seed: int | None = None) -> Iterator[None]:
    """Keep what the block does to the process from whoever comes after it.

    Restored are gradient mode, default dtype and device, determinism, cuDNN's switches, matrix
    precision, anomaly detection, the number of threads, numpy's handling of errors, the global
    generators of torch (with CUDA's, where it is in use), numpy and `random`, the working directory
    and the filters of warnings. It costs about 0.06 ms.

    Args:
        seed: seeds the three global generators within the block; any size. None leaves them as
            they are.
    """
    folder, modes, generators = _folder(), _modes(), _generators()
    try:
        with warnings.catch_warnings():
            if seed is not None:
                _seed(seed)
            yield
    finally:
        _restore_generators(*generators)
        for (_, put), before, after in zip(_MODES, modes, _modes(), strict=True):
            if before is not after and before != after:
                put(before)
        if folder is not None and folder != _folder():
            with contextlib.suppress(OSError):  # it may have been removed
                os.chdir(folder)


def copied(value: T) -> T:
    """Return a copy that shares nothing with plain data, tensors and arrays, however nested.

    What is none of these is the same object.
    """
    return cast(T, _copied(value))


def raised_by_code(error: BaseException) -> bool:
    """Tell whether code raised an error, and no person pressed Ctrl-C."""
    if not isinstance(error, KeyboardInterrupt):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def _copied(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if isinstance(value, tuple):
        make: Any = getattr(type(value), "_make", tuple)  # a named tuple stays one
        return make(map(_copied, value))
    if isinstance(value, Tensor):
        return value.clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _seed(seed: int) -> None:
    seed %= 2**63
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - user code draws from it
    # not torch.manual_seed: where CUDA has not been used yet, it formats a stack
    torch.default_generator.manual_seed(seed)
    if _uses_cuda():
        torch.cuda.manual_seed_all(seed)


def _generators() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if _uses_cuda() else None
    return random.getstate(), _NUMPY.state(), torch.get_rng_state(), cuda


def _restore_generators(own: Any, numpy: Any, cpu: Tensor, cuda: list[Tensor] | None) -> None:
    random.setstate(own)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


class _NumpyState:
    """Reads the state of numpy's global generator, which numpy makes slow (0.05 ms).

    It is read once as long as nobody draws.
    """

    def __init__(self) -> None:
        self._mark: bytes | None = None
        self._state: Any = None

    def state(self) -> Any:
        generator: Any = np.random.mtrand.get_bit_generator()
        mark = None
        if isinstance(generator, np.random.MT19937):
            mark = ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES)
        if mark is None or mark != self._mark:
            state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
            if mark is not None:  # a list goes back twenty times faster
                state["state"]["key"] = state["state"]["key"].tolist()
            # half of a pair of normal numbers may be taken without a change that the mark shows
            self._mark, self._state = None if state["has_gauss"] else mark, state
        return self._state


_NUMPY = _NumpyState()


def _device() -> torch.device | None:
    """Return the default device; None where none has been set, which torch's own getter hides."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else cast(torch.device, context.device)


def _determinism() -> tuple[bool, bool]:
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), only_warn


def _cudnn() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.deterministic, cudnn.benchmark


def _set_cudnn(values: tuple[bool, bool, bool]) -> None:
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.deterministic, cudnn.benchmark = values


def _precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set by a newer way, for one kind of device
        return "highest"


_MODES: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (_device, torch.set_default_device),
    (_determinism, lambda both: torch.use_deterministic_algorithms(both[0], warn_only=both[1])),
    (_cudnn, _set_cudnn),
    (_precision, torch.set_float32_matmul_precision),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (np.geterr, lambda found: np.seterr(**found)),
)


def _modes() -> list[Any]:
    return [get() for get, _ in _MODES]


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - ten times as fast as Path.cwd
    except FileNotFoundError:  # it has been removed
        return None

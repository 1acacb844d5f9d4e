"""What several test folders share."""

import os
import signal
from pathlib import Path

import pytest

# before torch is imported: threads that wait for each other cost tests more than they save, and
# several times as much on a machine that others use
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def omniglot_folder() -> Path:
    """The real archives, where this machine has them."""
    for place in (os.environ.get("EVOMETA_OMNIGLOT"), HERE.parents[1] / "shared/data/omniglot"):
        if place and (Path(place) / "images_background.zip").exists():
            return Path(place)
    pytest.skip("no Omniglot archives: set EVOMETA_OMNIGLOT to the folder that holds them")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep the tests out of the user's cache."""
    before = os.environ.get("EVOMETA_CACHE")
    os.environ["EVOMETA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["EVOMETA_CACHE"]
    else:
        os.environ["EVOMETA_CACHE"] = before


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """Let Ctrl-C interrupt, whatever started the tests or an earlier test (Ray Tune) made of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

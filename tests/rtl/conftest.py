"""RTL tests need verilator; builds go into a folder of the test run unless ACCELSIM_RTL_CACHE names one."""

import os
from pathlib import Path

import pytest

from accelsim.rtl.build import CACHE_VARIABLE, verilator_path


@pytest.fixture(scope="session")
def rtl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if verilator_path() is None:
        pytest.skip("verilator is not installed (apt-get install verilator)")
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else tmp_path_factory.mktemp("rtl")

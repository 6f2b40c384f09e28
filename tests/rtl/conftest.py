"""RTL tests need verilator; builds go into a folder of the test run unless ACCELSIM_RTL_CACHE names one."""

import os
from pathlib import Path

import pytest

from accelsim.rtl.build import CACHE_VARIABLE, verilator_path

REQUIRE_VARIABLE = "ACCELSIM_REQUIRE_VERILATOR"


@pytest.fixture(scope="session")
def rtl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if verilator_path() is None:
        message = "verilator is not installed (apt-get install verilator)"
        if os.environ.get(REQUIRE_VARIABLE):
            pytest.fail(message)
        pytest.skip(message)
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    # Processes of one run share what they have built.
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "rtl"
    folder.mkdir(exist_ok=True)
    return folder

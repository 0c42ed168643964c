"""One undisturbed run of build_crv.py, with which others are compared."""

import pytest

from tests.support.moody_server import undisturbed


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole"))

"""An undisturbed run of build_crv.py, with which others are compared; a module's own, as some share its journal."""

import pytest

from tests.support.moody_server import undisturbed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole"))

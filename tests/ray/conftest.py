"""One local Ray for all tests, because starting it takes seconds."""

import pytest

from splade_integrations.ray import connected


@pytest.fixture(scope="package")
def local_ray():
    with connected(num_cpus=2, object_store_bytes=200 * 1024 * 1024):
        yield

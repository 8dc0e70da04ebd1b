"""A GPU that is not there, for tests of what runs on one."""

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from picking import warps


@contextlib.contextmanager
def fake_gpu():
    """Images on a GPU, uint8 (4, 32, 32), of which device and shape alone are known.

    A mixture of devices, or code that asks for a value (which would make the host wait for the
    GPU), raises.
    """
    try:
        with FakeTensorMode():
            images = torch.empty(4, 32, 32, dtype=torch.uint8, device="cuda")
            try:
                images[0] + 1
            except RuntimeError as error:
                pytest.skip(f"this torch cannot fake a GPU without a driver: {error}")
            yield images
    finally:
        warps._node_weights.cache_clear()  # tensors kept there are of no use to another fake mode

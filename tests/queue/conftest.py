"""What tests of the queue leave behind, they clear away themselves."""

import gc

import pytest
import zmq


@pytest.fixture(autouse=True)
def _no_context_is_left():
    """End the ZeroMQ contexts that bluesky-queueserver-api leaves to the garbage collector."""
    yield
    for context in [one for one in gc.get_objects() if isinstance(one, zmq.Context)]:
        if context is not zmq.Context.instance() and not context.closed:
            context.destroy(linger=0)

"""What tests of the queue leave behind, they clear away themselves."""

import gc

import pytest
import zmq


@pytest.fixture(autouse=True)
def _no_context_is_left():
    """End the ZeroMQ contexts that bluesky-queueserver-api leaves to the garbage collector."""
    yield
    # by its type: a weak reference to what is gone raises when it is asked what it is an instance of
    for context in [one for one in gc.get_objects() if issubclass(type(one), zmq.Context)]:
        if context is not zmq.Context.instance() and not context.closed:
            context.destroy(linger=0)

"""Serves the fake motor records of caproto's own examples: ``python fake_motor_ioc.py PORT PREFIX``."""

import sys

from record_ioc import on_port, serve

if __name__ == "__main__":
    on_port(int(sys.argv[1]))
    from caproto.ioc_examples.fake_motor_record import FakeMotorIOC

    serve(FakeMotorIOC(prefix=sys.argv[2]).pvdb)

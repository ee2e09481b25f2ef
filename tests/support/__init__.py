"""What the tests stand on: a scripted server, captures, conformance cases, oracles and faces."""

"""What the tests stand on: a scripted server, captures, conformance cases, oracles and runners of scenarios."""

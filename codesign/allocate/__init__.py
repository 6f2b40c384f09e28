"""Allocation: which format every filter and tensor gets, chosen with the prices of the simulator."""

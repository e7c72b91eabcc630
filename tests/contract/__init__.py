"""Contracts: a new network, loss, task or estimator inherits the tests of all the others."""

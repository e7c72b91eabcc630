"""A diagnostic in one file: how far apart the outputs on the test inputs are. `ROW` makes it known."""

import torch


class Spread:
    """The deviation of the outputs over the samples, and the largest one so far, which it remembers."""

    def __init__(self, x):
        self.x, self.largest = x, 0.0

    @torch.no_grad()
    def __call__(self, module, optimizer, row):
        spread = module(self.x).std().item()
        self.largest = max(self.largest, spread)
        return {"toy_spread": spread, "toy_largest_spread": self.largest}

    def state_dict(self):
        return {"largest": self.largest}

    def load_state_dict(self, state):
        self.largest = state["largest"]


def ROW(facts):  # noqa: N802  (a row of the table, as those of the toy loss and network)
    return Spread(facts.x_test)

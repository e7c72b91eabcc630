"""The benchmark of own equations: its cases are made, and one that is wrong is refused."""

import pytest

from benchmarks.own_pdes import one_run
from benchmarks.own_pdes_cases import CASES, asian_value, control_value, digital_value
from tnml.errors import InputError


def test_cases_are_made_and_their_values_known():
    for case in CASES:
        if case.name == "batch mixing":
            with pytest.raises(InputError, match="in a batch than alone"):
                case.make()
        elif case.name != "linear-quadratic control, d = 100":
            assert case.make().dim >= 1
    assert asian_value() == pytest.approx(7.496, abs=5e-4)
    assert digital_value() == pytest.approx(0.5323, abs=5e-5)
    assert control_value(10) == pytest.approx(6.7294, abs=5e-5)
    refused = one_run(next(case for case in CASES if case.name == "batch mixing"), 1.0, 0)
    assert refused["verdict"] == "refused"
    assert "in a batch than alone" in refused["refused"]

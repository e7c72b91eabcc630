"""The contract of networks. A new network is tested by a subclass that gives what `TensorMember` asks for.

    class TestRing(NetworkContract):
        network = "ring"
        options: ClassVar = {"bond_dim": 3}
        others: ClassVar = [{"bond_dim": 2}]

        def weight_tensor(self, layer):
            ...

Where the table does not hold the network, `row` puts it there for the time of a test.
"""

from contract.network_answers import ExactAnswers
from contract.network_life import LivesAsALayer
from contract.network_numbers import OneTensor, RightNumbers


class StackContract(RightNumbers, LivesAsALayer):
    """The tests of a network that is not one tensor, for it normalises inside."""


class NetworkContract(StackContract, OneTensor, ExactAnswers):
    """All tests of a network."""

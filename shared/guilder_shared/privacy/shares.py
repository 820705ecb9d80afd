"""Several processes, each a share of a step's passes: one clipped sum, one noise.

Each process computes whole passes of the public height, every so-manieth one, on a
device of its own. Sums are added as whole numbers, so that the result is the same
however many processes there are. This module starts no process (`training.crew`),
computes no gradient and draws no noise. It imports torch.

Review, mathematics. A pass holds the same units whoever computes it, and enters with
the same bits: before a turn every process computes made-up rows, and bits that differ
end the turn, because weights that a server chose could turn a difference of devices
into a whole gradient. A pass is rounded to a grid of at most C x 2**-44: in L2 at most
C x 2**-45 x sqrt(numbers) a pass, 2**-18 C for 2**26 numbers in 2**14 passes, far
below the slack of 1e-3 that is charged; the margin of the clip norm, 2**-10, pays for
it. Whole numbers are kept in two halves of 32 bits, each in 64: no sum of fewer than
2**31 passes overflows. Noise is added once, by the process that leads, to the whole
sum. Public: how many processes, heights, grid. Secret: every sum.
Review, crash order: in memory only. A process that ends breaks the exchange: the others
raise, and the turn fails after its charge as any other.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, distributed, nn

from guilder_shared.errors import DeviceError
from guilder_shared.privacy import witness

GRID_BITS = 44
_HALF = 32


class Shares:
    """One of the processes that share a turn.

    Only tensors pass between them; nothing is read as code. Every method is called by
    all processes, in the same order, except `mine` and `add`.

    Args:
        rank: Of this process; 0 leads.
        num: Processes.
        device: Where the tensors of the exchange are.

    Attributes:
        watched: Whether a self-test looks on; rows are made up then.
    """

    def __init__(self, rank: int, num: int, device: str = "cpu") -> None:
        self.rank, self.num = rank, num
        self.watched = False
        self._device = torch.device(device)
        self._grid = 1.0
        self._halves = torch.zeros(2, 0, dtype=torch.int64)

    @property
    def leads(self) -> bool:
        """Whether this process adds the noise and learns."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether this process computes the pass of this number of a step."""
        return number % self.num == self.rank

    def same(self, params: Sequence[nn.Parameter], clip_norm: float) -> float:
        """Give everyone the leader's weights; returns the leader's clip norm."""
        told = torch.tensor([clip_norm], dtype=torch.float64, device=self._device)
        distributed.broadcast(told, 0)
        with torch.no_grad():
            for p in params:
                distributed.broadcast(p.data, 0)
        clip_norm = float(told)
        self._grid = 2.0 ** (math.floor(math.log2(clip_norm)) - GRID_BITS)
        return clip_norm

    def agree(self, find: Callable[[int | None], int], asked: int | None) -> int:
        """The height of passes that every process finds safe.

        Args:
            find: The height that this process finds, at most what it is asked for.
            asked: To begin with; None for no wish.
        """
        while True:
            found = find(asked)
            asked = self._least(found)
            if self._least(int(found == asked)):
                return asked

    def demand_alike(self, bits: int) -> None:
        """Refuse devices that do not compute alike.

        Args:
            bits: What made-up rows entered with here, as one number below 2**62.

        Raises:
            DeviceError: GLD-G011.
        """
        if self._least(bits) != -self._least(-bits):
            raise DeviceError(
                "GLD-G011",
                f"the {self.num} devices of this site do not compute alike.",
                why="Made-up rows came out with other bits on one of them.",
                fix="Name devices of one kind, or devices = 1 under [speed].",
            )

    def anybody(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return bool(-self._least(-int(here)))

    def add(self, total: Tensor) -> None:
        """Add the sum of one pass, (numbers,) float64; it means nothing afterwards."""
        whole = total.div_(self._grid).round_().to(torch.int64)
        halves = self._room(total)
        halves[0] += whole >> _HALF
        halves[1] += whole & ((1 << _HALF) - 1)

    def together(self, total: Tensor, unclipped: float) -> float:
        """Bring all shares together.

        Args:
            total: (numbers,) float64; the leader's becomes the sum of all shares.
            unclipped: This share's; a multiple of one half.

        Returns:
            All shares' `unclipped`, exact.
        """
        halves = self._room(total)
        distributed.reduce(halves, 0)
        if self.leads:
            torch.mul(halves[0].double(), 2.0**_HALF, out=total)
            total.add_(halves[1].double()).mul_(self._grid)
        self.clear()
        counted = torch.tensor([unclipped], dtype=torch.float64, device=self._device)
        distributed.all_reduce(counted)
        if self.watched:
            self._tell_rows()
        return float(counted)

    def clear(self) -> None:
        """Drop what was added."""
        self._halves.zero_()

    def _room(self, like: Tensor) -> Tensor:
        if self._halves.shape[1] != len(like):
            self._halves = torch.zeros(
                2, len(like), dtype=torch.int64, device=like.device
            )
        return self._halves

    def _least(self, value: int) -> int:
        told = torch.tensor([value], dtype=torch.int64, device=self._device)
        distributed.all_reduce(told, op=distributed.ReduceOp.MIN)
        return int(told)

    def _tell_rows(self) -> None:
        """Let the leader's self-test know which made-up rows the others read."""
        rows = torch.from_numpy(witness.rows_read()).to(self._device)
        most = -self._least(-len(rows))
        padded = torch.full((most,), -1, dtype=torch.int64, device=self._device)
        padded[: len(rows)] = rows
        every = [torch.empty_like(padded) for _ in range(self.num)]
        distributed.all_gather(every, padded)
        if self.leads:
            others = torch.cat(every[1:]) if self.num > 1 else padded[:0]
            witness.read(others[others >= 0].cpu().numpy())

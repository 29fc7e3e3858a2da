"""Memory that is written again and again, so that it need not be had from the operating system each time."""

import threading
from math import prod

import numpy as np


class Scratch(threading.local):
    """Room for one array of uint8 per thread, as large as the largest so far.

    New memory of the size of an image comes page by page, which takes a quarter of the time of decoding a JPEG.
    """

    def __init__(self) -> None:
        self._room = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Give the room the form of an array.

        Args:
            shape (tuple[int, ...]): Its shape.

        Returns:
            np.ndarray: uint8, contiguous, of any content. The thread's next call gives the same memory.
        """
        size = prod(shape)
        if self._room.size < size:
            self._room = np.empty(size, np.uint8)
        return self._room[:size].reshape(shape)

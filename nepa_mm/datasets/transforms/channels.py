"""Where the channels of an image lie in memory.

Decoders and OpenCV keep the three values of a pixel together; a batch has its channels one behind the other. numpy and
torch take as long to go from one to the other as a resize takes, OpenCV a thirtieth of that. Here, images keep their
usual shape (H, W, 3), so that any step can follow, and are views of (3, H, W) where that is the memory's order:
``PackInputs`` and ``PackSegInputs`` then copy nothing.
"""

import cv2
import numpy as np


def to_planes(image: np.ndarray, reverse: bool = False) -> np.ndarray:
    """Lay the channels of an image one behind the other.

    Args:
        image (np.ndarray): uint8 (H, W, 3), contiguous.
        reverse (bool): Whether to go from RGB to BGR or back. Defaults to False.

    Returns:
        np.ndarray: uint8 (H, W, 3), a view of (3, H, W).
    """
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes[::-1] if reverse else planes))
    return planes.transpose(1, 2, 0)


def to_pixels(image: np.ndarray, reverse: bool = False) -> np.ndarray:
    """Keep the three values of a pixel together.

    Args:
        image (np.ndarray): uint8 (H, W, 3), in any memory order.
        reverse (bool): Whether to go from RGB to BGR or back. Defaults to False.

    Returns:
        np.ndarray: uint8 (H, W, 3), contiguous; the image itself if it is so and not reversed.
    """
    if image.flags.c_contiguous:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if reverse else image
    channels = [image[..., channel] for channel in range(3)]
    return cv2.merge(channels[::-1] if reverse else channels)

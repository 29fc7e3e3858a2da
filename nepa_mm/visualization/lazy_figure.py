"""Visualizers that import matplotlib when they draw."""

from __future__ import annotations

from typing import Any


class LazyFigure:
    """Inherited from before a visualizer: its figure is made when somebody draws.

    mmengine's ``Visualizer`` makes it at once, for which matplotlib is imported; in a training run it writes scalars,
    and most runs never draw.

    Args:
        name (str): Name of the visualizer. Defaults to 'visualizer'.
        image (np.ndarray, optional): An image to draw on, at once. Defaults to None.
        **kwargs (Any): Further arguments of the visualizer.
    """

    fig_save_cfg: dict[str, Any]
    _parts: tuple[Any, Any, Any] | None = None

    def __init__(self, name: str = 'visualizer', image: Any = None, **kwargs: Any) -> None:
        self._draws = image is not None
        super().__init__(name=name, image=image, **kwargs)  # type: ignore[call-arg]
        self._draws = True

    def _initialize_fig(self, fig_cfg: dict[str, Any]) -> tuple[Any, Any, Any]:
        return (None, None, None)

    def _figure(self) -> tuple[Any, Any, Any]:
        """Canvas, figure and axes."""
        if self._parts is None:
            self._parts = super()._initialize_fig(self.fig_save_cfg)  # type: ignore[misc]
        return self._parts

    # What mmengine's Visualizer calls them. It sets them in its constructor, where it also asks for the resolution.
    @property
    def fig_save_canvas(self) -> Any:
        return self._figure()[0]

    @fig_save_canvas.setter
    def fig_save_canvas(self, value: Any) -> None:
        pass

    @property
    def fig_save(self) -> Any:
        return self._figure()[1] if self._draws else _NoFigure()

    @fig_save.setter
    def fig_save(self, value: Any) -> None:
        pass

    @property
    def ax_save(self) -> Any:
        return self._figure()[2]

    @ax_save.setter
    def ax_save(self, value: Any) -> None:
        pass

    @property
    def dpi(self) -> float:
        return self._figure()[1].get_dpi()

    @dpi.setter
    def dpi(self, value: Any) -> None:
        pass


class _NoFigure:
    def get_dpi(self) -> None:
        return None

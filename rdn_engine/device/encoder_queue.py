"""The queue of a device that frames are encoded on, of one stream or of a batch of them."""

from __future__ import annotations

from rdn_engine.device.encoder import DeviceEncoder
from rdn_engine.device.gpu import CapturedWork
from rdn_engine.device.model import DeviceModel
from rdn_engine.errors import FrameError


class EncoderQueue:
    """A queue and the encoder on it, for the frame size of the moment: of one stream, or of a batch of them."""

    def __init__(self, model: DeviceModel, batch: int) -> None:
        """Make the queue; the encoder comes with the first frame.

        Args:
            model: shared by the streams.
            batch: frames in one run, one of each stream.
        """
        self._model, self._batch = model, batch
        self.queue = model.gpu.queue()
        """That frames are encoded on"""
        self._encoder: DeviceEncoder | None = None
        self._program: CapturedWork | None = None
        self._round: tuple[int, int] | None = None

    def begin(self) -> None:
        """Begin a batch: whatever size its frames have, they have it together."""
        self._round = None

    def encoder(self, size: tuple[int, int], num_reference: int, num_support: int) -> DeviceEncoder:
        """The encoder for a frame. It is made anew for another size or N, which waits until the last one is idle.

        Args:
            size: (height, width) of the frame, pixels.
            num_reference: N, rows of a frame.
            num_support: K, its first rows that get keys and values; always the same.

        Raises:
            FrameError: for another size than that of a frame of the same batch.
            MemoryError: where the device has no room.
        """
        if self._batch > 1 and self._round not in (None, size):
            raise FrameError(f"got a frame of {size} pixels after one of {self._round}; a batch wants one size")
        self._round = size
        made = self._encoder
        if made is None or (made.size, made.num_reference) != (size, num_reference):
            self.queue.wait()
            model = self._model
            self._program = None
            self._encoder = made = DeviceEncoder(
                model.gpu, self.queue, model.config, model.graphs, size, self._batch, num_reference, num_support
            )
        return made

    @property
    def nbytes(self) -> int:
        """Bytes of the encoder, on the device; 0 before the first frame."""
        return 0 if self._encoder is None else self._encoder.nbytes

    def run(self) -> None:
        """Encode a batch, where it is not part of a stream's own program."""
        assert self._encoder is not None
        if not self._encoder.capturable:
            self._encoder.run()
            return
        if self._program is None:
            self._program = CapturedWork(self.queue, self._encoder.run)
        self._program()

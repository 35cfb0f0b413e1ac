"""Sound files made for tests, in the containers Rapt reads."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


def tone(hz: float, seconds: float, *, level: float = 0.1, rate_hz: int = 16_000) -> Samples:
    """A sine of that amplitude."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def write_sound(path: Path, samples_CS: Samples, *, rate_hz: int = 16_000, codec: str = "pcm_f32le") -> Path:
    """Channels into a file; PCM keeps them as they are."""
    layout = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}[len(samples_CS)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        form = "flt" if codec == "pcm_f32le" else stream.codec_context.format.name
        interleaved = np.ascontiguousarray(samples_CS.T.reshape(1, -1), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = rate_hz
        for part in av.AudioResampler(format=form, layout=layout, rate=rate_hz).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def break_packets(path: Path, numbers: slice) -> int:
    """Overwrite those packets of the sound with bytes that no decoder takes. Returns how many packets there are."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(container.streams.audio[0]) if packet.size]
    content = bytearray(path.read_bytes())
    for pos, size in places[numbers]:
        at = content.index(b"\xff", pos) if content[pos] != 0xFF else pos  # mkv: behind the block's header
        content[at : at + size - 8] = b"\x00" * (size - 8)
    path.write_bytes(content)
    return len(places)

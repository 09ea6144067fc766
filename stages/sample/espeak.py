"""The espeak-ng speech synthesiser through ctypes: text in, 16-bit samples out, the same bytes every time.

A second call in one process gives other samples, even another length, than the first one did. The result is
repeatable only when the library is freshly initialised, its random numbers are seeded, and nothing has been
spoken before: so call ``speak`` once per process.
"""

import ctypes
from pathlib import Path

from d2v_core.errors import UserError

SYNCHRONOUS, DO_NOT_EXIT, UTF8 = 2, 0x8000, 1
SPEED, PITCH = 1, 3
RANDOM_SEED = 1
ON_SAMPLES = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def load() -> tuple[ctypes.CDLL, Path]:
    """Return the shared library, not yet initialised, and the folder of its data."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("the sample of speech needs espeakng-loader; run: pip install espeakng-loader") from None
    return ctypes.CDLL(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


def speak(text: str, voice: str, pitch: int, speed: int) -> tuple[bytes, int]:
    """Return ``text`` spoken, as 16-bit mono samples, and their rate in Hz; for one call per process.

    ``voice`` is a language or voice name with an optional variant ("en-us+f2"), ``pitch`` is 0 to 99 and
    ``speed`` is in words per minute. Raises UserError when there is no such voice.
    """
    library, data = load()
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), DO_NOT_EXIT)
    if rate <= 0:
        raise UserError(f"espeak-ng cannot read {data}; reinstall espeakng-loader, in a path below 160 characters.")
    library.espeak_ng_SetRandSeed(ctypes.c_long(RANDOM_SEED))
    _, plus, variant = voice.partition("+")
    # The library itself takes an unknown variant in silence.
    known = not plus or (data / "voices" / "!v" / variant).is_file()
    if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise UserError(f"espeak-ng has no voice {voice!r}; choose another under sample.speech in params.yaml.")
    library.espeak_SetParameter(PITCH, pitch, 0)
    library.espeak_SetParameter(SPEED, speed, 0)
    chunks: list[bytes] = []

    @ON_SAMPLES
    def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0

    library.espeak_SetSynthCallback(keep)
    encoded = text.encode()
    library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, UTF8, None, None)
    return b"".join(chunks), rate

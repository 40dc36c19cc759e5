"""What damaged files make their readers raise."""

import struct
import zipfile
import zlib
from tokenize import TokenError

DAMAGED_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error,
    OverflowError, TypeError, SyntaxError, TokenError,
)  # fmt: skip
"""Of a cut, altered or encrypted .npz or .npy, read by numpy without pickles."""

"""What damaged files make their readers raise."""

import struct
import zipfile
import zlib
from tokenize import TokenError

DAMAGED_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error,
    OverflowError, TypeError, SyntaxError, TokenError,
)  # fmt: skip
"""Of a cut, altered or encrypted zip file, .npz or .npy; arrays are read by numpy, without pickles."""

"""Errors of parsers that mean nothing to the user who named the file, even if they are ValueErrors."""

import json
import struct
import zipfile
import zlib

RAW = (UnicodeError, json.JSONDecodeError, zipfile.BadZipFile, struct.error, zlib.error)

"""Errors of parsers that say nothing to whoever named the file, also where they happen to be ValueErrors."""

import json
import struct
import zipfile
import zlib

RAW = (UnicodeError, json.JSONDecodeError, zipfile.BadZipFile, struct.error, zlib.error)

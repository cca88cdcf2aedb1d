"""Asks Samba itself about each password on stdin: a length in 4 bytes, little-endian, and so many bytes.

Answers with 6 bytes each: whether check_password_quality finds it complex; whether Samba's Python binding, which takes valid UTF-8 alone, says the
same (2: it cannot be asked); and strlen_m, by which Samba counts the characters, in 4 bytes. The first line is Samba's version.
"""

import ctypes
import struct
import sys

import samba
import samba._glue

glue = ctypes.CDLL(samba._glue.__file__)  # and, through it, the libraries that it is linked with
quality, length = glue.check_password_quality, glue.strlen_m
quality.argtypes, quality.restype = [ctypes.c_char_p], ctypes.c_bool
length.argtypes, length.restype = [ctypes.c_char_p], ctypes.c_size_t

questions, answers = sys.stdin.buffer, sys.stdout.buffer
answers.write(samba.version.encode() + b"\n")
while head := questions.read(4):
    password = questions.read(struct.unpack("<I", head)[0])
    complex, same = quality(password), 2
    if b"\0" not in password:
        try:
            same = samba.check_password_quality(password.decode()) == complex
        except UnicodeDecodeError:
            pass
    answers.write(struct.pack("<BBI", complex, same, length(password)))

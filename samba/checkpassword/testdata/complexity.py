#!/usr/bin/python3
"""Ask Samba itself which passwords it finds complex.

Made complexity.golden, on a machine with Samba's Python bindings (Debian's
python3-samba, Samba 4.17.12):

    python3 complexity.py 300 > complexity.golden

Each line is "yes" or "no", a tab, and the password as a JSON string. The first
passwords are the adversarial ones below; as many as the argument says are
random, from a fixed seed. With 50000 instead of 300 it makes the larger file
that the Go code was compared with once.
"""

import json
import random
import sys

import samba

ASCII = [chr(c) for c in range(1, 128)]

# Characters on which Samba, Unicode and Go might well disagree: letters without
# the other case, title case, Roman numerals, circled and full width letters,
# scripts that got their second case late, combining marks, the private use
# area, non-characters, and what lies beyond U+FFFF.
ODD = (
    "\u00a0\u00aa\u00ad\u00b2\u00b5\u00b9\u00ba\u00bd\u00d7\u00df\u00f7\u00ff\u0130\u0131\u0138\u0149\u0178\u017f"
    "\u0180\u018e\u01c4\u01c5\u01c6\u01cb\u01f0\u01f2\u0220\u023a\u0242\u0259\u0294\u0345\u0370\u0390\u03a9\u03c2"
    "\u03d2\u03f4\u03f7\u0400\u04c0\u04cf\u0528\u0531\u0561\u0587\u05d0\u0660\u0966\u0e01\u10a0\u10d0\u1c90\u13a0"
    "\u13f8\uab70\u1d79\u1d7d\u1e00\u1e9b\u1e9e\u1efe\u1f80\u1f88\u1fbc\u1fbe\u1fcc\u1ffc\u2028\u2071\u2126\u212a"
    "\u212b\u2132\u214e\u2160\u2170\u2183\u2184\u24b6\u24d0\u2c00\u2c30\u2c2e\u2c5e\u2c60\u2c62\u2c7e\u2c80\u2cf2"
    "\u2d00\u3042\u4e2d\ua640\ua722\ua78d\ua7c0\uac00\ue000\uf8ff\ufb00\ufb13\ufdd0\ufe0f\uff10\uff21\uff41\uff5e"
    "\ufffd\ufffe\uffff\U00010000\U00010400\U00010428\U000104b0\U00010c80\U000118a0\U0001d400\U0001d7d8\U0001e900"
    "\U0001f170\U0001f600\U000e0041\U000f0000\U0010ffff"
)


def adversarial():
    yield from ["", "a", "aA", "a1", "A1", "aA1", "1!", "a1!", "A 1", "a 1", "a\t1", "a\x7f1", "a\x011"]
    for c in ASCII:  # which of them is "not alphanumeric"?
        if not c.isalnum():
            yield "a1" + c
    for c in ODD:  # upper if only the first is complex, lower if only the second, other if both
        yield "a1" + c
        yield "A1" + c
    for a in ODD[:40:3]:
        for b in ODD[1::17]:
            yield "1" + a + b


def arbitrary(count):
    pool = [chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000]
    letters = [c for c in pool if c.lower() != c or c.upper() != c]
    rng = random.Random(4)
    for _ in range(count):
        sources = rng.choices([ASCII, list(ODD), letters, pool[:0x2000], pool], weights=[3, 3, 3, 2, 1], k=rng.randint(1, 4))
        yield "".join(rng.choice(s) for s in sources for _ in range(rng.randint(1, 2)))


def main():
    passwords = list(adversarial()) + list(arbitrary(int(sys.argv[1])))
    for password in dict.fromkeys(passwords):
        print("yes" if samba.check_password_quality(password) else "no", json.dumps(password), sep="\t")


main()

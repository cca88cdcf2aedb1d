#!/usr/bin/python3
"""A check password script of the usual kind, in Python: length, character classes, the account's name, a line in syslog, and the password in a
file for some other job to pick up. Not synced to disk. Only modules that come with Python, and none for HTTP or for a database."""
import datetime
import json
import logging
import logging.handlers
import os
import re
import sys


def faults(password, user):
    if len(password) < 8:
        yield "too short"
    if sum(bool(re.search(c, password)) for c in ("[a-z]", "[A-Z]", "[0-9]", "[^a-zA-Z0-9]")) < 3:
        yield "too simple"
    if user.lower() in password.lower():
        yield "contains the name"


def main():
    log = logging.getLogger("check-password")
    log.setLevel(logging.INFO)
    handler = logging.handlers.SysLogHandler("/dev/log", facility="auth")
    handler.setFormatter(logging.Formatter("%(name)s[%(process)d]: %(message)s"))
    log.addHandler(handler)

    password = sys.stdin.buffer.read().decode()
    user = os.environ.get("SAMBA_CPS_ACCOUNT_NAME", "unknown")
    for fault in faults(password, user):
        log.warning("password of %s refused: %s", user, fault)
        return 1
    now = datetime.datetime.now(datetime.timezone.utc)
    os.umask(0o077)
    folder = sys.argv[1] if len(sys.argv) > 1 else "/var/lib/check-password"
    with open(os.path.join(folder, f"{user}.{now:%Y%m%d%H%M%S%f}.json"), "x", encoding="utf-8") as file:
        json.dump({"user": user, "password": password, "time": now.isoformat()}, file)
    log.info("password of %s accepted", user)
    return 0


if __name__ == "__main__":
    sys.exit(main())

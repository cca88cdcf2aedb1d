"""capture: make the accounts of which the golden files are, and print what Samba stored, and what its own library reads in it, as JSON.

Runs on the DC, on its database, as root. The passwords protect nothing and are meant to be read.
"""
import base64
import json
import subprocess

import ldb
import samba
from samba import param
from samba.auth import system_session
from samba.credentials import Credentials
from samba.dcerpc import drsblobs
from samba.ndr import ndr_unpack
from samba.samdb import SamDB

PASSWORDS = ["Golden-Word-1", "Golden-Paßwort-2", "Golden-Пароль-3"]

lp = param.LoadParm()
lp.load_default()
db = SamDB(url=lp.samdb_url(), lp=lp, session_info=system_session())
passwords = {}  # by account, oldest first


def find(name):
    return db.search(expression="(sAMAccountName=%s)" % name)[0]


def write(name, attribute, value, controls=()):
    message = ldb.Message(find(name).dn)
    message[attribute] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, attribute)
    db.modify(message, controls=list(controls))


def change(name, password):
    db.setpassword("(sAMAccountName=%s)" % name, password)
    passwords[name].append(password)


def create(name, password=PASSWORDS[0]):
    db.newuser(name, password)
    passwords[name] = [password]


def with_option(option, value, name):
    """An account whose last password was set under an option of smb.conf."""
    before = lp.get(option)
    try:
        lp.set(option, value)
    except RuntimeError:  # this Samba does not know it
        return
    if lp.get(option) == before:
        return
    create(name)
    change(name, PASSWORDS[1])
    lp.set(option, " ".join(before) if isinstance(before, list) else before or "")


# Keys of three passwords.
create("changed")
change("changed", PASSWORDS[1])
change("changed", PASSWORDS[2])

# The salt is that of the old name.
create("newname")
write("newname", "sAMAccountName", "renamed")
passwords["renamed"] = passwords.pop("newname")

with_option("password hash userPassword schemes", "CryptSHA256 CryptSHA512:rounds=5000", "schemes")
with_option("nt hash store", "never", "nohash")

subprocess.run(["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key", "golden@example.com"],
               check=True, stdout=subprocess.DEVNULL)
keys = subprocess.run(["gpg", "--list-keys", "--with-colons", "golden@example.com"], check=True, stdout=subprocess.PIPE).stdout.decode()
fingerprint = [line for line in keys.splitlines() if line.startswith("fpr:")][0].split(":")[9]
with_option("password hash gpg key ids", fingerprint, "gpg")

# Reversible encryption, which the account and the domain have to ask for.
create("cleartext")
write("cleartext", "userAccountControl", str(0x200 | 0x80))
properties = int(db.get_pwdProperties())
db.set_pwdProperties(str(properties | 0x10))
change("cleartext", PASSWORDS[1])
db.set_pwdProperties(str(properties))

# As samdb_set_password does for the hash that comes over SAMR.
create("hashonly")
credentials = Credentials()
credentials.set_password(PASSWORDS[1])
write("hashonly", "unicodePwd", bytes(credentials.get_nt_hash()), ["local_oid:1.3.6.1.4.1.7165.4.3.9:1"])
passwords["hashonly"].append(PASSWORDS[1])

# Past the password module: the keys of the older password stay.
create("bypassed")
credentials.set_password(PASSWORDS[1])
write("bypassed", "unicodePwd", bytes(credentials.get_nt_hash()), ["local_oid:1.3.6.1.4.1.7165.4.3.12:1"])
passwords["bypassed"].append(PASSWORDS[1])

create("smartcard")
write("smartcard", "userAccountControl", str(0x200 | 0x40000))
passwords["smartcard"] = []  # drawn by the DC

db.add({"dn": "CN=bare,CN=Users," + db.domain_dn(), "objectClass": "user", "sAMAccountName": "bare"})
passwords["bare"] = []


def encode(value):
    return base64.b64encode(bytes(value)).decode()


def read_keys(keys):
    return [{"type": k.keytype, "iterations": getattr(k, "iteration_count", 0), "value": encode(k.value)} for k in keys or []]


def read_package(name, data):
    """What is in a package, read by Samba's own library."""
    if name == "Packages":
        return {"names": data.decode("utf-16-le").split("\0")}  # the bindings give an object without contents
    if name == "Primary:Kerberos":
        c = ndr_unpack(drsblobs.package_PrimaryKerberosBlob, data).ctr
        return {"salt": c.salt.string, "keys": read_keys(c.keys), "oldKeys": read_keys(c.old_keys)}
    if name == "Primary:Kerberos-Newer-Keys":
        c = ndr_unpack(drsblobs.package_PrimaryKerberosBlob, data).ctr
        return {"salt": c.salt.string, "iterations": c.default_iteration_count, "keys": read_keys(c.keys),
                "serviceKeys": read_keys(c.service_keys), "oldKeys": read_keys(c.old_keys), "olderKeys": read_keys(c.older_keys)}
    if name == "Primary:WDigest":
        return {"hashes": [encode(h.hash) for h in ndr_unpack(drsblobs.package_PrimaryWDigestBlob, data).hashes]}
    if name == "Primary:userPassword":
        u = ndr_unpack(drsblobs.package_PrimaryUserPasswordBlob, data)
        return {"current": encode(u.current_nt_hash.hash), "schemes": [{"scheme": h.scheme, "value": encode(h.value)} for h in u.hashes]}
    return {"raw": encode(data)}


def read_account(name):
    wanted = ["unicodePwd", "supplementalCredentials", "replPropertyMetaData"]
    entry = db.search(expression="(sAMAccountName=%s)" % name, attrs=wanted)[0]
    account = {a: encode(entry[a][0]) for a in wanted if a in entry}
    account["passwords"] = passwords[name]
    meta = ndr_unpack(drsblobs.replPropertyMetaDataBlob, entry["replPropertyMetaData"][0])
    account["stamps"] = [{"attid": m.attid, "version": m.version, "time": m.originating_change_time,
                          "invocationId": str(m.originating_invocation_id), "usn": m.originating_usn} for m in meta.ctr.array]
    if "supplementalCredentials" in entry:
        blob = ndr_unpack(drsblobs.supplementalCredentialsBlob, entry["supplementalCredentials"][0])
        account["packages"] = {p.name: read_package(p.name, bytes.fromhex(p.data)) for p in blob.sub.packages or []}
    return account


def read_cursors(cursors):
    return [{"invocationId": str(c.source_dsa_invocation_id), "usn": c.highest_usn,
             "lastSync": getattr(c, "last_sync_success", 0)} for c in cursors]


domain = db.search(base=db.domain_dn(), scope=ldb.SCOPE_BASE, attrs=["replUpToDateVector"])[0]
vector = ndr_unpack(drsblobs.replUpToDateVectorBlob, domain["replUpToDateVector"][0])
reply = db.search(base=db.domain_dn(), expression="(objectClass=*)", attrs=["objectGUID"], controls=["dirsync:1:0:100000"])
cookie = base64.b64decode(str(reply.controls[0]).split(":")[-1])
blob = ndr_unpack(drsblobs.ldapControlDirSyncCookie, cookie).blob



def text(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


# One line each: that is enough to see what changed between two runs.
told = {
    "samba": text(samba.version),
    "accounts": "{\n%s\n}" % ",\n".join("%s: %s" % (text(name), text(read_account(name))) for name in sorted(passwords)),
    "replUpToDateVector": text({"value": encode(domain["replUpToDateVector"][0]), "cursors": read_cursors(vector.ctr.cursors)}),
    "dirSyncCookie": text({
        "value": encode(cookie), "time": blob.time, "invocationId": str(blob.guid1),
        "highObjUpdate": blob.highwatermark.tmp_highest_usn, "highPropUpdate": blob.highwatermark.highest_usn,
        "cursors": read_cursors(blob.extra.ctr.cursors) if blob.extra_length else [],
    }),
}
print("{\n%s\n}" % ",\n".join('"%s": %s' % item for item in told.items()))

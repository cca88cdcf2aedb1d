#!/bin/bash
# A check password script of the usual kind, as it is found in forums: length, character classes, the account's name, a line in syslog, and
# the password in a file for some other job to pick up. Not synced to disk.
password=$(cat)
user=${SAMBA_CPS_ACCOUNT_NAME:-unknown}

refuse() {
	logger -p auth.warning -t check-password "password of $user refused: $1"
	exit 1
}

[ ${#password} -ge 8 ] || refuse "too short"
classes=0
[[ $password =~ [a-z] ]] && classes=$((classes + 1))
[[ $password =~ [A-Z] ]] && classes=$((classes + 1))
[[ $password =~ [0-9] ]] && classes=$((classes + 1))
[[ $password =~ [^a-zA-Z0-9] ]] && classes=$((classes + 1))
[ $classes -ge 3 ] || refuse "too simple"
[[ ${password,,} == *"${user,,}"* ]] && refuse "contains the name"

umask 077
printf '%s\n' "$password" >"$1/$user.$(date +%s%N)" || refuse "not stored"
logger -p auth.info -t check-password "password of $user accepted"

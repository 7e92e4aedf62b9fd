#!/usr/bin/env bash
# Sets the kernel settings of a profile: tune.sh PROFILE [--dry-run | --undo] [--namespace]
#
# PROFILE is a file of tuning/sysctl (10k, 100k, 1m, 10m). The difference is shown before anything is set, and the old
# values are saved under $PINION_TUNE_STATE (default /var/lib/pinion/tune) for --undo. No limit is ever lowered: a value
# that is larger already stays. Settings that this kernel, or this namespace, does not have are skipped by name.
# --namespace leaves out what belongs to the whole host: for a container with a network of its own.
# It lasts until the next boot; the head of each profile says how to keep it.
#
# Ends with 0 when all is as wanted, 1 when something could not be set, 2 when it was called wrongly.
set -u -o pipefail
PROFILES=$(cd "$(dirname "$0")/../tuning/sysctl" && pwd) || exit 2
STATE=${PINION_TUNE_STATE:-/var/lib/pinion/tune}

usage() {
    echo "usage: tune.sh PROFILE [--dry-run | --undo] [--namespace]; profiles: $(cd "$PROFILES" && echo *.conf | sed 's/\.conf//g')" >&2
    exit 2
}

# path_of KEY: no key of ours has a dot inside a component.
path_of() { echo "/proc/sys/${1//.//}"; }

# value_of KEY: with single blanks between numbers.
value_of() { tr -s '\t ' ' ' <"$(path_of "$1")" | sed 's/ $//'; }

# set_value KEY VALUE
set_value() { { echo "$2" >"$(path_of "$1")"; } 2>/dev/null; }

# keys: lines `KEY SCOPE VALUE` of the profile; the scope stands in the comment above the key.
keys() {
    awk '/^# scope:/ { scope = $3 }
         /^[a-z]/ { key = $1; sub(/^[^=]*= */, ""); print key, scope, $0 }' "$PROFILE"
}

# wanted CURRENT VALUE: each number of VALUE unless CURRENT's is larger; a list of ports is added to what is there.
wanted() {
    awk -v current="$1" -v value="$2" 'BEGIN {
        if (value ~ /,/) {
            n = split(value, ours, ","); have = "," current ","; sum = current
            for (i = 1; i <= n; i++) if (index(have, "," ours[i] ",") == 0) sum = sum (sum == "" ? "" : ",") ours[i]
            print sum; exit
        }
        n = split(value, ours, " "); split(current, theirs, " ")
        # As text where a number is too long for a double to hold exactly.
        for (i = 1; i <= n; i++) {
            larger = length(theirs[i]) > length(ours[i]) || (length(theirs[i]) == length(ours[i]) && theirs[i] "" > ours[i] "")
            printf "%s%s", (i > 1 ? " " : ""), larger ? theirs[i] : ours[i]
        }
        print "" }'
}

# save KEY OLD NEW: the first old value is the one to come back to, however often a profile is applied.
save() {
    local old
    mkdir -p "$STATE" || return 1
    old=$(awk -F'\t' -v key="$1" '$1 == key { print $2; exit }' "$SAVED" 2>/dev/null)
    if grep -q "^$1	" "$SAVED" 2>/dev/null; then
        sed -i "/^$1	/d" "$SAVED"
    else
        old=$2
    fi
    printf '%s\t%s\t%s\n' "$1" "$old" "$3" >>"$SAVED"
}

apply() {
    local key scope value now want failed=0
    while read -r key scope value; do
        if [ "$NAMESPACE" = yes ] && [ "$scope" != netns ]; then
            echo "skipped   $key: of the whole host"
            continue
        fi
        if [ ! -e "$(path_of "$key")" ]; then
            echo "skipped   $key: this kernel or namespace does not have it"
            continue
        fi
        now=$(value_of "$key")
        want=$(wanted "$now" "$value")
        if [ "$now" = "$want" ]; then
            echo "enough    $key = $now"
            continue
        fi
        echo "change    $key: ${now:-(empty)} -> $want"
        [ "$DRY" = no ] || continue
        if ! save "$key" "$now" "$want"; then
            echo "FAILED    $key: the old value cannot be saved in $STATE, so it is left"
            failed=1
        elif ! set_value "$key" "$want" || [ "$(value_of "$key")" != "$want" ]; then
            echo "FAILED    $key: is $(value_of "$key"); root, and a writable /proc/sys, are needed"
            failed=1
        fi
    done < <(keys)
    return "$failed"
}

# What somebody else has changed since is not ours to undo.
undo() {
    local key old new now failed=0
    [ -s "$SAVED" ] || { echo "nothing is saved in $SAVED"; return 0; }
    while IFS=$'\t' read -r key old new; do
        now=$(value_of "$key" 2>/dev/null)
        if [ "$now" = "$old" ]; then
            echo "restored  $key = ${old:-(empty)} (was so already)"
        elif [ "$now" != "$new" ]; then
            echo "FAILED    $key: is ${now:-(gone)}, not the $new that was set: changed since, left"
            failed=1
        elif set_value "$key" "$old" && [ "$(value_of "$key")" = "$old" ]; then
            echo "restored  $key: $new -> ${old:-(empty)}"
        else
            echo "FAILED    $key: cannot be set back to $old"
            failed=1
        fi
    done <"$SAVED"
    [ "$failed" -ne 0 ] || rm -f "$SAVED"
    return "$failed"
}

NAME='' DRY=no UNDO=no NAMESPACE=no
for word in "$@"; do
    case $word in
        --dry-run) DRY=yes ;;
        --undo) UNDO=yes ;;
        --namespace) NAMESPACE=yes ;;
        -*) usage ;;
        *) [ -z "$NAME" ] || usage; NAME=$word ;;
    esac
done
PROFILE=$PROFILES/$NAME.conf
SAVED=$STATE/$NAME.saved
[[ $NAME =~ ^[a-z0-9]+$ ]] && [ -f "$PROFILE" ] || usage
[ "$DRY$UNDO" != yesyes ] || usage
if [ "$UNDO" = yes ]; then undo; else apply; fi

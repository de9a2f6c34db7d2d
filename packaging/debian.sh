#!/usr/bin/env bash
# Installs the Debian packages that the tests or the demo need and this machine lacks: debian.sh test|demo
# As root it installs them, without starting any service. Otherwise it says what is missing and what is left out.
set -euo pipefail

# Purpose | package (or names of it in other releases) | how to see that it is there | what is left out without it
needs() {
    cat <<'TABLE'
demo|g++|program g++|everything that runs a real Mesos
demo|binutils|program nm|everything that runs a real Mesos
demo|e2fsprogs|program mkfs.ext4|volumes with ext4
demo|util-linux|program blkid|volumes on loop devices
demo|mount|program losetup|volumes on loop devices
test|xfsprogs|program mkfs.xfs|volumes with xfs
test|cryptsetup-bin|program cryptsetup|the refusal of encrypted devices
test|fdisk|program sfdisk|the refusal of partitioned devices
test|strace|program strace|the death of a mkfs half way
test|libapr1 libapr1t64|library libapr-1.so.0|the death of a Mesos master
test|libsvn1 libsvn1t64|library libsvn_delta-1.so.1|the death of a Mesos master
test|libsasl2-2|library libsasl2.so.2|nothing (an empty stand-in is compiled)
test|postgresql|file /usr/lib/postgresql/*/bin/initdb|the ledger on PostgreSQL
test|default-jre-headless|program java|detection of the master through ZooKeeper
test|zookeeper|file /usr/share/java/zookeeper.jar|detection of the master through ZooKeeper
test|rabbitmq-server|file /usr/lib/rabbitmq/bin/rabbitmq-server|the tests against a real OpenStack
test|nfs-common|program mount.nfs|the tests against a real OpenStack
test|nfs-ganesha|program ganesha.nfsd|exports that are really mounted or read
test|nfs-ganesha-vfs|file /usr/lib/*/ganesha/libfsalvfs.so|exports that are really mounted or read
test|libnfs-utils|program nfs-cat|exports that are really read
test|qemu-utils|program qemu-img|the tests against a real OpenStack
test|qemu-system-x86|program qemu-system-x86_64|disks that come and go, and a kernel with an NFS client
test|open-iscsi|program iscsiadm|LUNs of a real iSCSI target in a guest
test|dmsetup|program dmsetup|maps of the device mapper in a guest
test|multipath-tools|program multipathd|LUNs under real multipath maps in a guest
test|zsh|program zsh|completion in zsh
test|fish|program fish|completion in fish
test|udev|program udevadm|LUNs under real multipath maps in a guest
TABLE
}

is_there() { # KIND NAME
    case $1 in
        program) PATH="$PATH:/usr/sbin:/sbin" command -v "$2" >/dev/null ;;
        library) /sbin/ldconfig -p | grep -qF "$2 " ;;
        file) compgen -G "$2" >/dev/null ;;
    esac
}

known_name() { # NAME...: the first that this release has
    local name
    for name in "$@"; do
        if apt-cache show "$name" >/dev/null 2>&1; then echo "$name"; return; fi
    done
    echo "$1"
}

install() { # PACKAGE...
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" # the answer "start no service"
        chmod 755 "$policy"
        trap 'rm -f '"$policy" EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

main() {
    local wanted=$1 missing=() purpose names check without kind name
    while IFS='|' read -r purpose names check without; do
        read -r kind name <<<"$check"
        [ "$wanted" = test ] || [ "$purpose" = "$wanted" ] || continue
        if ! is_there "$kind" "$name"; then
            missing+=("$names")
            echo "missing: ${names%% *}; left out without it: $without"
        fi
    done < <(needs)
    if [ ${#missing[@]} = 0 ]; then return; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Install these as root (Debian's names) to have everything."
        return
    fi
    echo "Asking Debian for its list of packages"
    apt-get update -qq >/dev/null
    local packages=() entry
    for entry in "${missing[@]}"; do
        # shellcheck disable=SC2086 # the names of one package, separated by spaces
        packages+=("$(known_name $entry)")
    done
    echo "Installing ${packages[*]}"
    install "${packages[@]}"
}

main "${1:?test or demo}"

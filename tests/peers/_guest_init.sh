#!/bin/busybox sh
# The first process of the guest: this machine's files, read-only, with a layer in memory above them, become its root.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in virtio_pci 9pnet_virtio 9p overlay virtio_console virtio_net virtio_blk virtio_scsi sd_mod nvme; do
    modprobe "$module" || echo "no module $module"
done
word() { sed -n "s/.* polly\.$1=\([^ ]*\).*/\1/p" /proc/cmdline | base64 -d; }
folder=$(word folder)
python=$(word python)
echo guest >/proc/sys/kernel/hostname

mkdir -p /below /layer /root
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 machine /below
mount -t tmpfs -o mode=755 layer /layer
mkdir -p /layer/upper/usr/lib /layer/work
cp -a /lib/modules /layer/upper/usr/lib/modules
mount -t overlay -o lowerdir=/below,upperdir=/layer/upper,workdir=/layer/work overlay /root
for tree in proc sys dev; do mount --move "/$tree" "/root/$tree"; done
ln -s /proc/self/fd /root/dev/fd
for name in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${name%:*}" "/root/dev/${name#*:}"; done
mkdir -p /root/run /root/dev/pts /root/dev/shm
mount -t tmpfs -o mode=755 run /root/run
mount -t devpts devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mkdir /root/run/guest
cp /bin/busybox /root/run/guest/modprobe
echo /run/guest/modprobe >/root/proc/sys/kernel/modprobe

ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2

# A shell stays the first process: it takes in the children that nobody waits for.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
exec switch_root /root /bin/sh -c 'cd "$1" && "$2" -m tests.peers._guest_agent; echo o >/proc/sysrq-trigger; sleep 60' sh "$folder" "$python"

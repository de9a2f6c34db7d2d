"""The node's own code in a guest of QEMU: real NVMe, virtio and SCSI disks that come, grow and go, and a real NFS client."""

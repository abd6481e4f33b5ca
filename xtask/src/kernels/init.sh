#!/bin/sh
# The guest's first process: looks, runs the scenarios, says on the serial console how it went in lines
# that start with @zerohop, and switches the machine off.
/bin/busybox mkdir -p /bin /sbin
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin HOME=/root ZEROHOP_BIN_DIR=/zerohop/bin
# An emulated processor takes its time.
export ZEROHOP_DEADLINE_FACTOR=10
/bin/mount -t proc proc /proc
/bin/mount -t sysfs sysfs /sys
/bin/mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
/bin/mount -t devpts devpts /dev/pts
/bin/mount -t tmpfs tmpfs /dev/shm
/bin/mount -t tmpfs tmpfs /run
/bin/mount -t tmpfs tmpfs /tmp
/bin/mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/mount -t bpf bpf /sys/fs/bpf
ip link set lo up

say() { echo "@zerohop $*"; }

say kernel "$(uname -r)"
while read -r module; do
    insmod "/zerohop/modules/$module.ko" || say broken "module $module does not load"
done < /zerohop/modules/order

say check-begin
/zerohop/bin/meshctl check -o json > /tmp/check.json
status=$?
cat /tmp/check.json
echo
say check-end $status

if [ $status -ne 0 ]; then
    # Refused: the agent has to say so by itself, and leave nothing.
    mkdir /tmp/manifests
    printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n' > /tmp/manifests/a.yaml
    say agent-begin
    timeout 120 /zerohop/bin/mesh-agent run --config-dir /tmp/manifests --node-name guest 2>&1
    say agent-end $?
    say pins "$(find /sys/fs/bpf/zerohop -type f 2>/dev/null | wc -l)"
else
    accelerates=no
    grep -A 1 '"name": "acceleration"' /tmp/check.json | grep -q '"ok"' && accelerates=yes
    while read -r binary test needs; do
        if [ "$needs" = acceleration ] && [ $accelerates = no ]; then
            say skipped "$binary::$test"
            continue
        fi
        started=$(cut -d. -f1 /proc/uptime)
        timeout 300 "/zerohop/tests/$binary" --exact "$test" --test-threads=1 > /tmp/output 2>&1
        status=$?
        # A binary without a test of that name ends well, too.
        grep -q "^test $test ... ok" /tmp/output || status=missing
        seconds=$(( $(cut -d. -f1 /proc/uptime) - started ))
        if [ "$status" = 0 ]; then
            say passed "$binary::$test" $seconds
        else
            say failed "$binary::$test" $seconds
            cat /tmp/output
            say failed-end
        fi
    done < /zerohop/scenarios
fi
say done
poweroff -f

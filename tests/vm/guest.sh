#!/usr/bin/env bash
# Inside the machine, as root: guest.sh RESULTS test PHASE... | command PHASE
# Leaves PHASE.log and PHASE.status for each phase, and `status` for the whole, in RESULTS (a folder of the host).
set -u
results=$1 task=$2
shift 2
selection=/home/student/src/tests/vm/selection
groups=/sys/fs/cgroup
user=$groups/user.slice/user-1000.slice

enable() { echo "+cpuset +cpu +io +memory +pids" >"$1/cgroup.subtree_control"; }

prepare() {
    modprobe overlay
    modprobe ext4
    mount -t ext4 /dev/vda /home
    mount --bind /home/etc /etc
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    echo '|/usr/bin/tee /run/dumped' >/proc/sys/kernel/core_pattern
    install -d -m 0700 -o 1000 -g 100 /run/user/1000
    # the groups as systemd lays them out: a service, a login session, a user manager with a delegated subtree
    mkdir -p $groups/system.slice/tests.service $user/session-1.scope $user/user@1000.service/app.slice
    for group in $groups $groups/user.slice $user; do enable "$group"; done
    for group in $user/user@1000.service $user/user@1000.service/app.slice; do
        chown 1000:100 "$group" "$group"/cgroup.{procs,subtree_control,threads}
    done
}

# the user's service manager and bus, where logind would have put them
start_manager() {
    local group=$user/user@1000.service/init.scope run=/run/user/1000
    mkdir -p $group /run/systemd/system
    chown -R 1000:100 $user/user@1000.service
    (
        echo $BASHPID >$group/cgroup.procs
        exec env -i PATH=/usr/bin:/bin HOME=/home/student XDG_RUNTIME_DIR=$run \
            DBUS_SESSION_BUS_ADDRESS=unix:path=$run/bus setpriv --reuid=1000 --regid=100 --clear-groups \
            sh -c 'dbus-daemon --session --address=unix:path=$XDG_RUNTIME_DIR/bus --nofork --nopidfile & exec /lib/systemd/systemd --user'
    ) >"$results/manager.log" 2>&1 </dev/null &
    for _ in $(seq 600); do [ -S $run/systemd/private ] && [ -S $run/bus ] && return; sleep 0.1; done
    echo "no user manager" >&2
}

# in PHASE COMMAND...: run it as the phase's user, in the phase's cgroup
in_phase() {
    local phase=$1 group ids=() variables=(HOME=/home/student XDG_RUNTIME_DIR=)
    shift
    case $phase in
    root)
        group=$groups/system.slice/tests.service
        variables=(HOME=/root)
        ;;
    user)
        group=$user/session-1.scope
        ids=(--reuid=1000 --regid=100 --clear-groups)
        ;;
    user-delegated)
        # what `systemd-run --user --scope` makes
        group=$user/user@1000.service/app.slice/run-1.scope
        mkdir $group
        chown 1000:100 $group $group/cgroup.{procs,subtree_control,threads}
        ids=(--reuid=1000 --regid=100 --clear-groups)
        variables=(HOME=/home/student XDG_RUNTIME_DIR=/run/user/1000)
        ;;
    user-systemd)
        # a terminal of a desktop: its group holds processes of others, so only the user's manager can help
        start_manager
        group=$user/user@1000.service/app.slice/terminal.scope
        mkdir -p $group
        chown 1000:100 $group $group/cgroup.{procs,subtree_control,threads}
        sleep infinity >/dev/null 2>&1 &
        echo $! >$group/cgroup.procs
        ids=(--reuid=1000 --regid=100 --clear-groups)
        variables=(HOME=/home/student XDG_RUNTIME_DIR=/run/user/1000
            DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus)
        ;;
    esac
    (
        echo $BASHPID >$group/cgroup.procs
        cd /home/student/src
        exec env -i PATH=/home/student/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb \
            PYTHONDONTWRITEBYTECODE=1 "${variables[@]}" setpriv "${ids[@]}" "$@"
    )
}

test_phase() {
    local phase=$1 status list lists=()
    case $phase in
    root) lists=(common isolation limits root) ;;
    user) lists=(common isolation kernel user) ;;
    user-delegated) lists=(common limits kernel user-delegated) ;;
    user-systemd) lists=(user-systemd) ;;
    esac
    echo "=== $phase, $(uname -r), $(cut -d. -f1 /proc/uptime) s after the start"
    for list in "${lists[@]}"; do grep -v '^#' "$selection/$list.txt"; done >/run/selected
    in_phase "$phase" python -m pytest -q -p no:cacheprovider --tb=short --durations=5 \
        --basetemp="/home/student/tmp-$phase" @/run/selected 2>&1 </dev/null | tee "$results/$phase.log"
    status=${PIPESTATUS[0]}
    echo "$status" >"$results/$phase.status"
    return "$status"
}

# a first start reads Python and the package over 9p: not on the time of a test. From the machine's root group
warm_up() {
    (cd / && exec env -i PATH=/usr/bin:/bin HOME=/root /home/student/venv/bin/python -m container_magic run -c pass) \
        >/dev/null 2>&1 </dev/null
}

prepare
status=0
case $task in
test)
    warm_up
    for phase in "$@"; do test_phase "$phase" || status=1; done
    ;;
command) in_phase "$1" bash -c "$(cat "$results/command")" </dev/null || status=$? ;;
esac
# the manager and its bus: the machine powers off when nobody holds its console any more
echo 1 >$user/user@1000.service/cgroup.kill
wait
echo $status >"$results/status"
exit $status

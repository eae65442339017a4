#!/usr/bin/env bash
# Run docs/cluster/on_premises.yaml for real on one machine: `ray up`, jobs, `ray down`, over SSH.
#
#   benchmarks/on_premises_trial.sh [LOG]        default: docs/cluster/on_premises.log
#
# Two machines are made of this one with Linux namespaces: each has its own processes, /tmp, home, network and sshd,
# so `ray stop` sees its own machine alone and nothing else that runs here is touched. Their addresses exist inside the
# namespaces only. Nothing is left when the script ends.
# The cluster file is the documented one with addresses, user and key filled in; only the `pip install` is left out,
# since the machines share the environment of this checkout.
# Needs root, util-linux, iproute2, openssh-server, rsync, and this checkout outside /tmp.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
ENVIRONMENT=$ROOT/.venv
HEAD=10.77.0.1 WORKER=10.77.0.2 CLIENT=10.77.0.254

refuse() { echo "$*" >&2; exit 1; }

check_tools() {
    [ "$(id -u)" = 0 ] || refuse "namespaces need root; this is user $(id -un)"
    case "$ROOT/" in /tmp/*) refuse "$ROOT is hidden by the machines' own /tmp: move it";; esac
    local tool
    for tool in unshare nsenter ip sshd ssh ssh-keygen rsync setsid; do
        command -v $tool > /dev/null || [ -x /usr/sbin/$tool ] || refuse "not found: $tool"
    done
    [ -x "$ENVIRONMENT/bin/ray" ] || refuse "no $ENVIRONMENT/bin/ray: run make install first"
}

# ---- inside a machine -------------------------------------------------------------------------------------------

machine() {  # machine NAME DIR ADDRESS: the first process of a machine; the network is plugged in from outside
    local name=$1 dir=$2 address=$3
    hostname "$name"
    mkdir -p "$dir/tmp" "$dir/home/.ssh" /mnt/shared /run/sshd
    chmod 1777 "$dir/tmp"; chmod 700 "$dir/home" "$dir/home/.ssh"
    cp "$TRIAL/key.pub" "$dir/home/.ssh/authorized_keys"
    ln -s "$ENVIRONMENT" "$dir/home/qaclims-env"
    sed "s#^\(root:.*\):[^:]*:\([^:]*\)\$#\1:$dir/home:\2#" /etc/passwd > "$dir/passwd"
    mount --bind "$dir/passwd" /etc/passwd
    mount --bind "$TRIAL/shared" /mnt/shared
    mount --bind "$dir/tmp" /tmp
    until ip address show eth0 2> /dev/null | grep -q "$address"; do sleep 0.1; done
    ssh-keygen -q -t ed25519 -N '' -f "$dir/host_key"
    printf '%s\n' "ListenAddress $address" "HostKey $dir/host_key" 'PermitRootLogin prohibit-password' \
        'PasswordAuthentication no' 'StrictModes no' 'UsePAM no' 'PidFile none' \
        'Subsystem sftp internal-sftp' > "$dir/sshd_config"
    /usr/sbin/sshd -D -e -f "$dir/sshd_config" 2> "$dir/sshd.log"
}

# ---- around the machines ----------------------------------------------------------------------------------------

start_machine() {  # start_machine NAME ADDRESS
    local name=$1 address=$2 first
    mkdir -p "$TRIAL/$name"
    unshare --mount --uts --ipc --net --pid --fork --mount-proc --kill-child "$0" --machine \
        "$name" "$TRIAL/$name" "$address" &
    until first=$(pgrep -P $!); do sleep 0.1; done
    until [ "$(readlink /proc/"$first"/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
    ip link add "to-$name" type veth peer name eth0 netns "$first"
    ip link set "to-$name" master bridge up
    nsenter -t "$first" -n ip link set lo up
    nsenter -t "$first" -n ip link set eth0 up
    nsenter -t "$first" -n ip route add 10.77.0.0/24 dev eth0
    nsenter -t "$first" -n ip address add "$address/24" dev eth0
    nsenter -t "$first" -n ip route add default via $CLIENT
    echo "machine $name: $address"
}

on() {  # on ADDRESS COMMAND: by hand over SSH, for looking
    ssh -i "$TRIAL/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
        "root@$1" bash -ic "'$2'" 2>&1 | grep -v -e 'no job control' -e 'cannot set terminal' || true
}

say() { printf '\n==> %s  (%s s)\n' "$*" $SECONDS; }

write_cluster_file() {
    "$ENVIRONMENT/bin/python" - "$ROOT/docs/cluster/on_premises.yaml" "$TRIAL/on_premises.yaml" <<PYTHON
import sys, yaml
config = yaml.safe_load(open(sys.argv[1]))
config["provider"].update(head_ip="$HEAD", worker_ips=["$WORKER"])
config["auth"] = {"ssh_user": "root", "ssh_private_key": "$TRIAL/key"}
config["file_mounts"] = {"~/.qaclims-ray": "$TRIAL/token", "~/qaclims-dist": "$TRIAL/dist"}
config["setup_commands"] = [command for command in config["setup_commands"] if "pip install" not in command]
# Two logical CPUs more than a small machine may have: the worker's four make the run fit.
for key in ("head_start_ray_commands", "worker_start_ray_commands"):
    config[key][-1] += " --num-cpus=4 --object-store-memory=150000000"
yaml.safe_dump(config, open(sys.argv[2], "w"))
PYTHON
}

wait_for() {  # wait_for SECONDS WHAT COMMAND...
    local limit=$((SECONDS + $1)) what=$2; shift 2
    until "$@"; do
        [ $SECONDS -lt $limit ] || { echo "waited in vain for $what"; return 1; }
        sleep 2
    done
    echo "$what: yes"
}

show_failure() {
    on $HEAD 'ray status'
    tail -40 "$TRIAL"/head/tmp/ray/session_latest/logs/monitor.*
    tail "$TRIAL"/*/sshd.log
    exit 1
}

answers() { (exec 3<> "/dev/tcp/$1/22") 2> /dev/null; }
two_nodes() { on $HEAD 'ray status' | grep -q '/8.0 CPU'; }
no_ray() { ! on "$1" 'ps -eo args' | grep -q -e '[r]aylet' -e '[g]cs_server'; }

submit() { (cd "$ROOT" && ray job submit --address http://127.0.0.1:8265 --working-dir . -- "$@"); }

trial() {  # the client: a third machine, with its own /tmp, since Ray keeps its state of the cluster there
    mkdir -p "$TRIAL"/{client,shared,dist,token} /mnt/shared
    ip link set lo up
    ip link add bridge type bridge && ip address add $CLIENT/24 dev bridge && ip link set bridge up
    ssh-keygen -q -t ed25519 -N '' -f "$TRIAL/key"
    (umask 077; "$ENVIRONMENT/bin/python" -c "import secrets; print(secrets.token_hex(32), end='')" \
        > "$TRIAL/token/auth_token")
    cp "$ROOT/constraints.txt" "$TRIAL/dist/"
    start_machine head $HEAD
    start_machine worker $WORKER
    mount --bind "$TRIAL/client" /tmp
    export PATH=$ENVIRONMENT/bin:$PATH RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$TRIAL/token/auth_token
    export RAY_USAGE_STATS_ENABLED=0 TERM=dumb OMP_NUM_THREADS=1
    write_cluster_file
    wait_for 30 "SSH to head" answers $HEAD
    wait_for 30 "SSH to worker" answers $WORKER

    say ray up
    ray up -y --log-style pretty --log-color false "$TRIAL/on_premises.yaml"
    say the worker joins
    wait_for 120 "two nodes" two_nodes || show_failure
    on $HEAD 'ray status'

    say "tunnel: ray dashboard"
    ray dashboard "$TRIAL/on_premises.yaml" > "$TRIAL/tunnel.log" 2>&1 &
    local tunnel=$!
    wait_for 60 "Jobs API answers" bash -c 'ray job list --address http://127.0.0.1:8265 > /dev/null 2>&1'
    say a client without token is refused
    (RAY_AUTH_MODE=disabled ray job list --address http://127.0.0.1:8265 2>&1 | tail -1) || true

    say a job: its help
    submit python jobs/evaluate.py --help | grep -e usage -e succeeded
    say a job: data set and corpus of a small miniature
    submit python jobs/build_corpus.py --preset miniature --data.num-images 24 --out /mnt/shared/runs/trial
    ls "$TRIAL/shared/runs/trial"
    say a run that this cluster can never hold
    submit python jobs/build_corpus.py --preset miniature --data.num-images 24 --corpus.num-actors 40 \
        --out /mnt/shared/runs/large 2>&1 | grep -m 1 -e ResourceError || true

    say ray down
    kill $tunnel; wait $tunnel || true
    ray down -y --log-style pretty --log-color false "$TRIAL/on_premises.yaml"
    wait_for 30 "no Ray left on the head" no_ray $HEAD
    wait_for 180 "no Ray left on the worker" no_ray $WORKER
    say done
}

case "${1:-}" in
--machine) shift; machine "$@";;
--trial) trial;;
*)
    check_tools
    LOG=$(realpath -m "${1:-$ROOT/docs/cluster/on_premises.log}")
    TRIAL=$(mktemp -d /var/tmp/qaclims-trial.XXXX)
    export TRIAL
    trap 'rm -rf "$TRIAL"' EXIT
    trap 'exit 143' TERM INT
    # When the first process of the namespace ends, the kernel ends all others in it.
    unshare --mount --net --pid --fork --mount-proc --kill-child "$0" --trial 2>&1 |
        sed -u -e '/packaging.py/d; /working_dir.py/d; /dashboard_sdk.py/d; /cli.py:3[34]/d; /cli.py:6[68]/d' \
            -e '/bashrc: No such/d; /Shared connection to/d; /^ *$/d' \
            -e 's/\x1b\[[0-9;?]*[a-zA-Z]//g' -e 's/\r//g' -e "s#$TRIAL#TRIAL#g" -e "s#$ROOT#ROOT#g" | tee "$LOG"
    ;;
esac

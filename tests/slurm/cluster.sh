#!/usr/bin/env bash
# Starts a Slurm cluster for tests on one Debian machine that may be thrown away: two partitions of two nodes, no
# accounting. Each node pretends to have four cores, 16 GB and four GPUs. A test that kills a node does so in the partition
# `frail`, so that others can use the default one, `gpu`, at the same time. Run as root; needs the packages slurm-wlm and
# munge. Running it again replaces the cluster and its queue by an empty one.  `cluster.sh stop` ends it.
set -euo pipefail

host=$(hostname -s)
nodes=(n1 n2 n3 n4)
state=/var/lib/issl-test-slurm

pkill -x slurmd || true
pkill -x slurmctld || true
while pgrep -x slurmd || pgrep -x slurmctld; do sleep 0.2; done >/dev/null
if [ "${1:-start}" = stop ]; then exit; fi

rm -rf $state
mkdir -p /etc/slurm $state/ctld "${nodes[@]/#/$state/}" /run/munge
touch $state/gpu{0..3}
[ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
chown munge: /etc/munge/munge.key /run/munge && chmod 400 /etc/munge/munge.key
# The processes of one training look for each other by these names.
grep -q " ${nodes[*]}\$" /etc/hosts || echo "127.0.0.1 ${nodes[*]}" >>/etc/hosts

# Ready for tests: a job that ends is gone at once (KillWait), one that was requeued does not wait for two minutes until
# the credential of its first start is out of date (cred_expire), and squeue shows a job long after its end (MinJobAge).
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=test
SlurmctldHost=$host
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
SlurmdParameters=config_overrides
KillWait=5
MinJobAge=3600
ReturnToService=2
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd-%n.pid
SlurmdSpoolDir=$state/%n
StateSaveLocation=$state/ctld
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n[1-4] NodeHostname=$host Port=[17001-17004] CPUs=4 RealMemory=16000 Gres=gpu:4 State=UNKNOWN
PartitionName=gpu Nodes=n[1-2] Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=frail Nodes=n[3-4] MaxTime=1-00:00:00 State=UP
CONF
echo "NodeName=n[1-4] Name=gpu File=$state/gpu[0-3]" >/etc/slurm/gres.conf

pgrep -x munged >/dev/null || runuser -u munge -- /usr/sbin/munged
slurmctld
for node in "${nodes[@]}"; do slurmd -N "$node"; done
for _ in $(seq 60); do
    if [ "$(sinfo --noheader --Node --format %T 2>/dev/null | grep -c idle)" = ${#nodes[@]} ]; then exit; fi
    sleep 0.5
done
echo "the cluster does not come up:" >&2
sinfo >&2
tail "$state"/*.log >&2
exit 1

#!/usr/bin/env bash
# Starts a Slurm cluster for tests on one Debian machine that may be thrown away: two nodes of this machine's cores, each
# with two pretended GPUs, no accounting. Run as root; needs the packages slurm-wlm and munge. Running it again starts
# the cluster anew, with an empty queue.  `two-nodes.sh stop` ends it.
set -euo pipefail

host=$(hostname -s)
cores=$(nproc)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.45)}' /proc/meminfo) # MB a node
state=/var/lib/issl-test-slurm

pkill -x slurmd || true
pkill -x slurmctld || true
while pgrep -x slurmd || pgrep -x slurmctld; do sleep 0.2; done >/dev/null
if [ "${1:-start}" = stop ]; then exit; fi

rm -rf $state
mkdir -p /etc/slurm $state/ctld $state/n1 $state/n2 /run/munge
touch $state/gpu0 $state/gpu1
[ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
chown munge: /etc/munge/munge.key /run/munge && chmod 400 /etc/munge/munge.key
grep -q ' n1 n2$' /etc/hosts || echo "127.0.0.1 n1 n2" >>/etc/hosts # the processes of one training look for each other

# Ready for tests: a job that ends is gone at once (KillWait), and one that was requeued does not wait for two minutes
# until the credential of its first start is out of date (cred_expire).
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
MinJobAge=600
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
NodeName=n1 NodeHostname=$host Port=17001 CPUs=$cores RealMemory=$memory Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname=$host Port=17002 CPUs=$cores RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=1-00:00:00 State=UP
CONF
echo "NodeName=n[1-2] Name=gpu File=$state/gpu[0-1]" >/etc/slurm/gres.conf

pgrep -x munged >/dev/null || runuser -u munge -- /usr/sbin/munged
slurmctld
slurmd -N n1
slurmd -N n2
for _ in $(seq 60); do
    if [ "$(sinfo --noheader --Node --format %T 2>/dev/null | grep -c idle)" = 2 ]; then exit; fi
    sleep 0.5
done
echo "the cluster does not come up:" >&2
sinfo >&2
tail "$state"/*.log >&2
exit 1
